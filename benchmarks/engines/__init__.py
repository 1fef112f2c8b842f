"""Each engine through Modelyard beside the same engine bare: a module for each, for `python -m benchmarks.engines`."""
