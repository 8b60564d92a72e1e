"""The report of benchmarks/many_tasks.py as Markdown."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table_head import head, write_lines
from pipeline.markdown import markdown_table

NOTES = """\
Each row is a process of its own. *Memory* is what belongs to the process alone (unique set size),
in MB of a million bytes, beyond what it had before the first task; *opened* before any request,
*used* after each task has answered one text of 24 tokens and a batch of 16 texts of 128. *A further
task* is what opening and using all others added, for each of them.
*Load* is the time to open a session, hashes and tokenizer included. A request is one text of 24
tokens, through the session alone: again and again to the *same* task, or each to *any* task, in
turns of ten; medians, with the 95th percentile in parentheses. *Threads* are all of the process'
at the end. The tasks are BERT encoders with the same frozen weights and embeddings under different
uniformly random masks, each with a head of its own; peers open one and the same file each time.
"""


def write_table(content: Mapping[str, Any], path: Path) -> None:
    """Write the report on what was measured."""
    write_lines(_report(content), path)


def further_task_bytes(found: Mapping[str, Any], when: str = "run") -> float | None:
    """Unique memory that each task but the first takes; None if there is only one."""
    if found["tasks"] < 2:
        return None
    memory = found["memory"]
    added = memory[when]["uss"] - memory[f"first_{when}"]["uss"]
    # After the first run the others were open already, and had not run.
    if when == "run":
        added += memory["open"]["uss"] - memory["first_open"]["uss"]
    return float(added / (found["tasks"] - 1))


def _report(content: Mapping[str, Any]) -> Iterator[str]:
    yield from head("Many tasks on one backbone", "many_tasks", content)
    yield NOTES
    yield (
        f"Density {content['density']:g}, {content['threads']} threads, "
        f"{content['requests']} requests of each kind."
    )
    yield ""
    headers = ["sessions", "tasks", "opened", "used", "a further task"]
    headers += ["load of the first, ms", "of a further one", "same task, ms", "any task, ms"]
    headers += ["any / same", "threads"]
    rows = []
    for found in content["found"]:
        memory = {name: values["uss"] for name, values in found["memory"].items()}
        further = further_task_bytes(found)
        first, *others = found["open_seconds"]
        ratio = np.median(found["any_task_seconds"]) / np.median(found["same_task_seconds"])
        rows.append(
            [
                found["name"],
                str(found["tasks"]),
                f"{(memory['open'] - memory['start']) / 1e6:.0f}",
                f"{(memory['run'] - memory['start']) / 1e6:.0f}",
                "" if further is None else f"{further / 1e6:.1f}",
                f"{first * 1e3:.0f}",
                f"{np.median(others) * 1e3:.0f}" if others else "",
                _milliseconds(found["same_task_seconds"]),
                _milliseconds(found["any_task_seconds"]),
                f"{ratio:.2f}",
                str(found["threads_of_process"]),
            ]
        )
    yield markdown_table(headers, rows)
    for name, tasks in content["left_out"]:
        yield ""
        yield f"{name} with {tasks} tasks was left out: it would not fit into the memory allowed."


def _milliseconds(seconds: list[float]) -> str:
    return f"{np.median(seconds) * 1e3:.2f} ({np.percentile(seconds, 95) * 1e3:.2f})"
