"""Models as a Triton repository has them, read as ours: `config.pbtxt`, and the vLLM backend's `model.json`."""
