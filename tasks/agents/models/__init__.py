"""Model clients for AutoGen, and the registry that picks one by name."""
