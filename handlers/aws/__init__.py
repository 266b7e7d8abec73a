"""Lambda handlers. Each module has one ``handler``, and imports what it needs and no more: cold start counts."""
