"""The KServe v2 / Triton protocol."""
