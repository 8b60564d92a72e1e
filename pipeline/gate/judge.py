"""The verdict on all comparisons together.

A change fails where it is beyond its limit *and* chance does not explain it. Chance is held to the
stated rate over all comparisons of a check, by Holm's method (Holm 1979). Sizes have no chance.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.artifacts.benchmark import Benchmark
from pipeline.config import CheckConfig
from pipeline.gate.comparable import is_peer
from pipeline.gate.compare import compare_model
from pipeline.gate.judgement import GateResult, Judgement

__all__ = ["holm", "judge"]

# Differences below it are rounding: 0.880 - 0.875 is not quite half a point in binary.
_ROUNDING = 1e-9


def judge(bench: Benchmark, baseline: Benchmark, config: CheckConfig) -> GateResult:
    """Judge a benchmark that :func:`pipeline.gate.comparable.check_comparable` let through."""
    risk = 1.0 - config.confidence
    judged = [model for model in bench.models if not is_peer(model)]
    latencies = (len(judged) - 1) * len(bench.cells)
    qualities = 0 if bench.task is None else len(judged)
    level = risk / max(1, latencies + qualities)
    judgements = _fail(
        [
            judgement
            for model in judged
            for judgement in compare_model(model, bench, baseline, config, level=level)
        ],
        risk,
    )
    verdicts = {judgement.verdict for judgement in judgements}
    return GateResult(
        "failed"
        if "failed" in verdicts
        else "unmeasured"
        if "unmeasured" in verdicts
        else "passed",
        config.confidence,
        tuple(judgements),
        tuple(_notes(bench, baseline, judgements)),
    )


def holm(p_values: Sequence[float], risk: float) -> list[bool]:
    """Which hypotheses to reject, so that any is rejected wrongly with probability ``risk``."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > risk / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def _fail(judgements: Sequence[Judgement], risk: float) -> list[Judgement]:
    """The judgements, failed those that are beyond their limits and no chance."""
    rejected = iter(holm([j.p_value for j in judgements if j.p_value is not None], risk))
    final = []
    for judgement in judgements:
        no_chance = judgement.p_value is None or next(rejected)
        beyond = judgement.change is not None and judgement.change > judgement.limit + _ROUNDING
        final.append(replace(judgement, verdict="failed") if beyond and no_chance else judgement)
    return final


def _notes(bench: Benchmark, baseline: Benchmark, judgements: Sequence[Judgement]) -> Iterator[str]:
    if len(bench.models) == 1:
        yield (
            "Latency was not judged: there is one model, and so none to measure it against; "
            "bench a reference model, for instance the dense one, before it."
        )
    for kind, text in (
        ("quality", "A drop of less than {:.2g} points could be chance on these examples."),
        (
            "latency",
            "A latency ratio's growth to less than {:.3g} could be chance in these timings.",
        ),
    ):
        sure = [j.detectable for j in judgements if j.kind == kind and j.detectable is not None]
        limits = [j.limit for j in judgements if j.kind == kind]
        if sure and max(sure) > limits[0]:
            yield text.format(max(sure))
    peers = [model.name for model in bench.models if is_peer(model)]
    if peers:
        yield f"Other engines are not judged: {', '.join(peers)}."
    compared = [
        ("processor", bench.machine.cpu, baseline.machine.cpu),
        *(
            (f"version of {name}", version, baseline.versions.get(name, "unknown"))
            for name, version in bench.versions.items()
        ),
    ]
    for what, found, expected in compared:
        if found != expected:
            yield f"The {what} is {found}, in the baseline it was {expected}."
    if bench.models[0].model_sha256 != baseline.models[0].model_sha256:
        yield "The first model's file is another one than in the baseline."
    for name, benchmark in (("benchmark", bench), ("baseline", baseline)):
        if benchmark.unsteady_cells and len(bench.models) > 1:
            yield (
                f"The timing of the {name} was unsteady in {benchmark.unsteady_cells} of "
                f"{len(benchmark.cells)} cells."
            )
