"""Grammars in llama.cpp's notation: written from JSON schemas, checked before they are compiled."""
