"""Weights that a configuration has from the network: what it names, how they come, and what is remembered of it."""
