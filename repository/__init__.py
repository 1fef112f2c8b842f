"""What is on disk: models, versions, their configuration and the facts of their weights. Knows no backend."""
