"""Commands for who runs a fleet: thin clients of the management and inference services."""
