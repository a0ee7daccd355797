"""The process that runs a model for a balancer; it opens no listener."""
