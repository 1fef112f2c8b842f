"""LocalAI's model files: every field of theirs in Modelyard's words, with its place in the file."""
