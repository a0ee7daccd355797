"""Paddler serves language models on your own hardware: one balancer, any number of agents."""

__version__ = "0.1.0"
