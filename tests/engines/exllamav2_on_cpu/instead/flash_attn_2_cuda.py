"""exllamav2 imports this beside flash_attn, and uses nothing of it."""
