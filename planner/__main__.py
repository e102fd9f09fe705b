"""Entry of the ``planner`` command and of ``python -m planner``.

The command line is imported inside the guard: Ctrl-C during start-up ends quietly too.
"""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from planner.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)  # noqa: T201
        sys.exit(130)


if __name__ == "__main__":
    main()
