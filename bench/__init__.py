"""Measuring Paddler, and sizing a fleet with it: scripted agents, a load generator, comparisons."""
