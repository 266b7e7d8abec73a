"""The HTTP door: one ASGI application, for a container and for Lambda alike."""
