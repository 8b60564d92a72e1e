"""One process that times training steps or measures their memory; prints one line of JSON.

Run as ``python -m benchmarks.train_step_worker SETTING TASK`` by benchmarks/train_step.py. SETTING
is a :class:`~benchmarks.train_step_subjects.Setting` in JSON, TASK ``time`` or a subject's name.
"""

import json
import random
import statistics
import sys
import time
from typing import Any

import torch

from benchmarks.train_step_subjects import PARTS, SUBJECTS, Setting, Subject, make_batch
from pipeline.errors import PipelineError
from serve.probe import peak_rss_bytes
from smp.scores import Scores

# Turns that are timed part by part: on a GPU every part then waits for the one before.
_TURNS_IN_PARTS = 5
_STEPS_FOR_MEMORY = 3


def time_steps(setting: Setting) -> dict[str, Any]:
    """Time steps of all subjects in turns, each turn in a random order.

    Raises:
        PipelineError: sorting chose other scores than selecting did.
    """
    subjects = {name: Subject(name, setting) for name in SUBJECTS}
    batch = make_batch(setting, _vocabulary(next(iter(subjects.values()))))
    _check_masks(*list(subjects.values())[1:])
    for subject in subjects.values():
        for _ in range(setting.warm_up):
            subject.step(batch)
    order = list(SUBJECTS)
    generator = random.Random(setting.seed)
    seconds: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    density = subjects[SUBJECTS[1]].trainer.density
    for _ in range(setting.turns):
        generator.shuffle(order)
        for name in order:
            started = _now(setting)
            subjects[name].step(batch)
            seconds[name].append(_now(setting) - started)
    return {
        "seconds": seconds,
        "density": [density, subjects[SUBJECTS[1]].trainer.density],
        "parts": {name: _time_parts(subjects[name], batch, setting) for name in SUBJECTS},
        "trained": {name: subjects[name].trained for name in SUBJECTS},
    }


def peak_bytes(setting: Setting, name: str) -> int:
    """Peak memory of some steps of one subject: allocated on a GPU, else the resident set."""
    subject = Subject(name, setting)
    batch = make_batch(setting, _vocabulary(subject))
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(_STEPS_FOR_MEMORY):
        subject.step(batch)
    if setting.device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return peak_rss_bytes()


def _time_parts(subject: Subject, batch: Any, setting: Setting) -> dict[str, float]:
    """Median seconds of each part of a step."""
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    for _ in range(_TURNS_IN_PARTS):
        last = _now(setting)

        def after(part: str) -> None:
            nonlocal last
            now = _now(setting)
            seconds[part].append(now - last)
            last = now

        subject.step(batch, after)
    return {part: statistics.median(values) for part, values in seconds.items()}


def _check_masks(ours: Subject, by_sort: Subject) -> None:
    """Both must keep equal scores of each matrix; among ties, a sort keeps any."""
    for subject in (ours, by_sort):
        subject.update_masks()
    assert ours.trainer.scored is not None
    assert by_sort.trainer.scored is not None
    pairs = zip(
        ours.trainer.scored.parametrizations, by_sort.trainer.scored.parametrizations, strict=True
    )
    for pair in pairs:
        kept = [item.scores[item.mask].sort().values for item in pair if isinstance(item, Scores)]
        if not torch.equal(*kept):
            raise PipelineError("sorting and selecting keep different scores")


def _vocabulary(subject: Subject) -> int:
    return int(subject.trainer.model.encoder.config.vocab_size)


def _now(setting: Setting) -> float:
    if setting.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    setting, task = Setting(**json.loads(sys.argv[1])), sys.argv[2]
    if task == "time":
        print(json.dumps(time_steps(setting)))
    else:
        print(json.dumps({"peak_bytes": peak_bytes(setting, task)}))


if __name__ == "__main__":
    main()
