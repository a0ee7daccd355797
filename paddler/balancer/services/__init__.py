"""Thin edges of the balancer: decode, call the core, encode."""
