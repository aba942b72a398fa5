"""The console script: says what to install where the extra is missing."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, or end with 2 and the line that mends it."""
    try:
        from bktransport.cli import main as run
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] in ("bktransport", "bkformat"):
            raise
        sys.stderr.write(
            f"bktransport: {exc.name} is not installed; pip install 'bkformat[sandbox]'\n"
        )
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
