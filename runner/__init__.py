"""Loaded models: lifecycle, routing, admission and worker processes."""
