"""Benchmarks: measure Modelyard, other servers and a bare engine loop on the same work.

They talk to servers over HTTP only and import nothing of them. `python -m benchmarks.side_by_side` runs them all.
"""
