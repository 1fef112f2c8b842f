"""`modelyard bench`: measures any OpenAI-compatible server, compares engines on the same work, and reports.

`mixes` makes the work, `driver` sends it, `measures` makes figures of what came back, `result` keeps them; each
subcommand has a module of its own. It knows servers by their HTTP interface only.
"""
