"""The console script, and ``python -m pipeline``, for `torchrun -m pipeline train ...`."""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly even while it is still being imported."""
    # No telemetry: read by the hub's client when it is imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from pipeline.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
