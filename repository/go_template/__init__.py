"""Templates in the language of Go's text/template, with the functions that LocalAI's templates use, as Jinja2.

Text in, text out: `translate` is the way in. What the functions do is the worker's, which renders.
"""
