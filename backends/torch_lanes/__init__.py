"""What the plugins on PyTorch share: lanes of keys and values that a plan's rows are computed over, packed into one
forward of a transformers model, drawing from its logits, and embeddings. Knows no plugin."""
