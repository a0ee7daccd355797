"""Paddler serves large language models on your own hardware: a balancer and any number of agents."""

__version__ = "0.1.0"
