"""The verdict where GitHub Actions shows it: annotations, and the summary of the step.

An annotation is a line ``::error title=...::message`` of the step's output; the runner reads both
stdout and stderr. The summary is Markdown that is appended to the file in ``GITHUB_STEP_SUMMARY``.
"""

import os
from pathlib import Path
from typing import Literal

from pipeline.config import CheckConfig
from pipeline.gate.judgement import GateResult
from pipeline.gate.terminal import rounded
from pipeline.markdown import markdown_table, plain
from pipeline.quiet import error_stream

__all__ = ["annotate", "annotation", "report_to_github", "step_summary", "wants_github"]

_TITLE = "smp-pipeline check"

Level = Literal["error", "notice"]


def wants_github(config: CheckConfig) -> bool:
    """Whether the flag asks for it, or without the flag, whether this runs there."""
    if config.github is None:
        return os.environ.get("GITHUB_ACTIONS") == "true"
    return config.github


def report_to_github(result: GateResult) -> None:
    """Print an annotation for each comparison that did not pass, and append to the summary.

    What `--update` accepts is no error.
    """
    error: Level = "notice" if result.passed else "error"
    levels: dict[str, Level] = {"failed": error, "unmeasured": error, "not judged": "notice"}
    for verdict, level in levels.items():
        for judgement in result.of_verdict(verdict):
            annotate(level, judgement.sentence)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(step_summary(result))


def annotate(level: Level, message: str) -> None:
    """Print an annotation to stderr, also with ``--quiet``."""
    print(annotation(level, message), file=error_stream())


def annotation(level: Level, message: str) -> str:
    """The line that makes an annotation."""
    title = _escape(_TITLE).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={title}::{_escape(message)}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def step_summary(result: GateResult) -> str:
    """The comparisons, the notes and the verdict in Markdown."""
    headers = ["model", "quantity", "baseline", "now", "change", "limit", "p", "verdict"]
    rows = [
        [
            plain(judgement.model),
            plain(judgement.quantity),
            rounded(judgement.baseline),
            rounded(judgement.bench),
            rounded(judgement.change, 3),
            f"{judgement.limit:g}",
            rounded(judgement.p_value, 2),
            plain(judgement.reason) or judgement.verdict,
        ]
        for judgement in result.judgements
    ]
    parts = [f"### {_TITLE}: {plain(result.summary)}", markdown_table(headers, rows)]
    parts += [plain(note) for note in result.notes]
    return "\n\n".join(parts) + "\n\n"
