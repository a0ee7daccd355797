"""The syntaxes in which models call tools, read while they are generated."""
