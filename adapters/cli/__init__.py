"""The `modelyard` command. Each subcommand has a file; what it needs is imported when it runs."""


def main() -> None:
    """The console script's entry point."""
    from adapters.cli.app import build_cli

    build_cli()()
