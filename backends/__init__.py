"""Backend plugins: the contract in `backends.contract`, one folder per plugin beside it."""
