"""The pipeline on Kubernetes: manifests for every pool, rendered from the settings."""
