"""Agents without a model: the real link protocol, made-up tokens at a set pace, set faults."""
