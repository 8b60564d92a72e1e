"""What the reports of all benchmarks begin with, and how they are written."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["head", "write_lines"]

# Load average above which other work was running.
_BUSY = 0.5


def head(title: str, module: str, content: Mapping[str, Any]) -> Iterator[str]:
    """The first lines: what it is, what wrote it, and where and with what it was measured.

    Args:
        title: of the report.
        module: the benchmark's module, without its package.
        content: has ``machine`` and ``versions``.
    """
    yield f"# {title}"
    yield ""
    yield f"Written by `python -m benchmarks.{module}`."
    yield ""
    yield f"Machine: {json.dumps(content['machine'])}"
    yield ""
    yield f"Versions: {json.dumps(content['versions'])}"
    yield ""
    load = content["machine"].get("load_average") or 0.0
    if load > _BUSY:
        yield f"**Other work was running when it started (load average {load}).**"
        yield ""


def write_lines(lines: Iterable[str], path: Path) -> None:
    """Write a report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
