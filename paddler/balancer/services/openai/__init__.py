"""The OpenAI-compatible service, an endpoint a module."""
