"""`python -m benchmarks.peers`: other servers beside Modelyard, on the same weights, prompts and settings, in one run.

`catalog` says which servers and how they are started, `environments` installs them, `measuring` gives both the same
work in turns, `figures` makes ratios of what came back, `publish` writes the table and the plot.
"""
