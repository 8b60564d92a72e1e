"""The report of benchmarks/gate.py."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.gate_files import Rate
from benchmarks.gate_quality import DISCORDANCES, DROPS, RISK, binomial
from benchmarks.table_head import head
from pipeline.markdown import markdown_table

__all__ = ["interval", "report"]


def report(content: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the report."""
    settings, latency = content["settings"], content["latency"]
    yield from head("The gate", "gate", content)
    yield (
        f"Limits and confidence are the defaults of `smp-pipeline check` where nothing else is "
        f"said: a check in which nothing has changed may fail with a probability of {RISK:g}. "
        "Intervals are exact (Clopper and Pearson 1934), 95 %. *p* is the probability of so many "
        "failures or more if the rate were the stated one; a small one would show that the gate "
        "fails too often."
    )
    yield ""
    yield "## Latency"
    yield ""
    cells = ", ".join(f"{count} {name}" for name, count in sorted(latency["cells"].items()))
    yield (
        f"{settings['batch_size']} text of {settings['sequence_length']} tokens, one thread, "
        f"{settings['repetitions']} timed runs of each model a benchmark; the model is the engine "
        f"at density {settings['density']}, the reference dense fp32, both random weights in the "
        f"shape of {content['shape']}. {sum(latency['cells'].values())} real benchmarks in "
        f"{latency['seconds'] / 60:.0f} minutes, each with sessions of its own, in one process. "
        f"Their cells were: {cells}. Each benchmark is held against the one before it, so that "
        "neighbouring checks of a row share a file."
    )
    yield ""
    yield from _rates("what changed", latency["as_checked"])
    yield (
        "*Unmeasured*: one of the two cells was unusable, and `check` ends with exit code 2; the "
        "others are the checks that got a verdict. The slow-down is busy waiting for a fifth of "
        f"the time that each run took; by the medians of both it was {latency['slowdown']:.3f}."
    )
    yield ""
    yield (
        "Had the gate judged unusable cells too, by the same intervals, which it refuses to, all "
        "checks would have ended so:"
    )
    yield ""
    yield from _rates("what changed", latency["all"])
    yield "## Accuracy"
    yield ""
    yield (
        f"{settings['examples']} examples. *Discordance* is the share of examples that one of the "
        "two models gets right and the other wrong. The cells are the probability that a check "
        "fails at the default limit of half a point, computed, and in brackets the share of "
        f"{settings['simulations']} simulated checks that did."
    )
    for what in dict.fromkeys(case["rate"].what for case in content["accuracy"]):
        cases = {
            (case["discordance"], case["drop"]): case
            for case in content["accuracy"]
            if case["rate"].what == what
        }
        yield ""
        yield f"### {what[0].upper()}{what[1:]}"
        yield ""
        headers = ["discordance", *(f"drop of {drop:g}" for drop in DROPS)]
        rows = [
            [f"{discordance:g}", *(_case(cases.get((discordance, drop))) for drop in DROPS)]
            for discordance in DISCORDANCES
        ]
        yield markdown_table(headers, rows)
    yield ""
    yield (
        "A drop of one point is about nine examples of 872. Where hardly any other example changes "
        "sides it is found nearly always; among many that do, it cannot be told from chance, "
        "whatever the test."
    )
    yield ""
    yield "## F1"
    yield ""
    yield (
        f"{settings['examples']} examples, discordance 0.05, one model, and a limit of 0, which "
        "leaves the decision to the bootstrap alone."
    )
    yield ""
    yield from _rates("what changed", content["f1"])
    yield "## Size"
    yield ""
    yield markdown_table(["growth", "verdict"], [list(row) for row in content["size"].items()])


def _case(case: Mapping[str, Any] | None) -> str:
    if case is None:
        return ""
    rate = case["rate"]
    return f"{case['exact']:.3f} ({rate.failed / rate.checks:.3f})"


def _rates(first: str, rates: Sequence[Rate]) -> Iterator[str]:
    headers = [first, "checks", "failed", "rate", "unmeasured", "p"]
    rows = []
    for rate in rates:
        share = likely = ""
        if rate.checks:
            low, high = interval(rate.failed, rate.checks)
            share = f"{rate.failed / rate.checks:.3f} ({low:.3f} to {high:.3f})"
            if rate.what.startswith("nothing"):
                likely = f"{binomial(rate.checks, RISK)[rate.failed :].sum():.2g}"
        rows.append(
            [rate.what, str(rate.checks), str(rate.failed), share, str(rate.unmeasured), likely]
        )
    yield markdown_table(headers, rows)
    yield ""


def interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Clopper and Pearson 1934)."""

    def too_high(rate: float) -> bool:
        return float(binomial(trials, rate)[: successes + 1].sum()) < 0.025

    def too_low(rate: float) -> bool:
        return float(binomial(trials, rate)[successes:].sum()) < 0.025

    low = 0.0 if successes == 0 else _boundary(lambda rate: not too_low(rate))
    high = 1.0 if successes == trials else _boundary(too_high)
    return low, high


def _boundary(beyond: Callable[[float], bool]) -> float:
    """Where a condition that holds at 1 and not at 0 begins to hold."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high
