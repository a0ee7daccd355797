"""The wire of the OpenAI-compatible service, an endpoint a module.

Requests are lenient: unknown keys are ignored, as OpenAI's clients send ever new ones.
Answers carry no key that OpenAI's API does not know, ``reasoning_content`` aside.
"""
