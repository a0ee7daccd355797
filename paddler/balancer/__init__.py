"""The process that clients, operators and agents talk to."""
