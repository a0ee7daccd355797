"""The load generator: streams from any OpenAI-compatible or Paddler server, measured."""
