"""The agents: a port, the runner on AutoGen, model clients and tools."""
