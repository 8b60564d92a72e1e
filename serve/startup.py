"""Load time and peak memory of models, each measured in processes of its own."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from random import Random

from pipeline.artifacts.benchmark import Startup
from serve.child import ChildTask, run_child
from serve.session import Session

__all__ = ["measure_startups", "probe"]


def measure_startups(
    sessions: Sequence[Session],
    *,
    processes: int,
    batch_size: int,
    sequence_length: int,
    random: Random,
    advance: Callable[[], None],
) -> list[Startup]:
    """Probe every model in fresh processes, interleaved in random order.

    Args:
        sessions: the models; each is opened anew, as it is here.
        processes: how many for each model.
        batch_size: texts of the one batch.
        sequence_length: tokens a text.
        random: source of the order.
        advance: called after every process.

    Raises:
        MachineError: a process died, for instance for want of memory.
    """
    measured: list[list[Mapping[str, float]]] = [[] for _ in sessions]
    for _ in range(processes):
        order = list(range(len(sessions)))
        random.shuffle(order)
        for index in order:
            measured[index].append(probe(sessions[index], batch_size, sequence_length))
            advance()
    return [
        Startup(
            processes=len(runs),
            load_ms=statistics.median(run["load_ms"] for run in runs),
            baseline_rss_bytes=int(statistics.median(run["baseline_rss_bytes"] for run in runs)),
            peak_rss_bytes=int(statistics.median(run["peak_rss_bytes"] for run in runs)),
        )
        for runs in measured
    ]


def probe(session: Session, batch_size: int, sequence_length: int) -> Mapping[str, float]:
    """Open one model in a fresh process of this interpreter; see :mod:`serve.probe`.

    Raises:
        MachineError: the process failed or was killed.
    """
    task = ChildTask.of(session, batch_size, sequence_length)
    measured: Mapping[str, float] = run_child("serve.probe", task, what="its load time and memory")
    return measured
