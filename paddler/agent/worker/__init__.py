"""The child process that holds the model."""
