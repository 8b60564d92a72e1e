"""How often the 95 % intervals of timings cover the truth, on made-up latencies.

    python -m benchmarks.intervals

Latencies are exp(5 % of an autoregressive series of order one): each run resembles the one before,
the more the closer the series' correlation is to 1. Two tables: of one model's median, with the
blocks of `bench` and with runs drawn one by one; and of the ratio of two equal models, each in a
series of its own, as the bootstrap gives it and widened by a third equal model, the control.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.entry import run
from pipeline.artifacts.benchmark import Estimate
from pipeline.bootstrap import median_estimate, ratio_estimate
from pipeline.markdown import markdown_table
from serve.steadiness import widen

RUNS = (30, 100)
CORRELATIONS = (0.0, 0.3, 0.5, 0.7, 0.9)
SCATTER = 0.05
_BEFORE = 200  # until a series has forgotten its start


def main() -> int:
    return run(measure, parse_arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--series", type=int, default=400, help="made-up benchmarks a figure")
    add("--bootstrap-samples", type=int, default=500)
    add("--seed", type=int, default=0)
    add("--output", type=Path, default=Path("benchmarks/results/intervals.md"))
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> None:
    rows: dict[str, list[list[str]]] = {"median": [], "ratio": []}
    for runs in RUNS:
        shares = []
        for correlation in CORRELATIONS:
            print(f"{runs} runs, correlation {correlation}", file=sys.stderr, flush=True)
            shares.append(
                coverage(
                    runs,
                    correlation,
                    series=arguments.series,
                    samples=arguments.bootstrap_samples,
                    seed=arguments.seed,
                )
            )
        blocks, singly, plain, widened = (
            [f"{share:.2f}" for share in column] for column in zip(*shares, strict=True)
        )
        rows["median"] += [[f"{runs} runs", *blocks], [f"{runs} runs, drawn one by one", *singly]]
        rows["ratio"] += [[f"{runs} runs", *plain], [f"{runs} runs, widened", *widened]]
    header = ["correlation of neighbours", *(f"{correlation:g}" for correlation in CORRELATIONS)]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(
        "# Coverage of the intervals of timings\n\nWritten by `python -m benchmarks.intervals`: "
        f"the share of {arguments.series} made-up benchmarks whose 95 % interval holds the truth, "
        f"with {arguments.bootstrap_samples} bootstrap samples.\n\n"
        f"## Of a median\n\n{markdown_table(header, rows['median'])}\n\n"
        f"## Of the ratio of two equal models\n\n{markdown_table(header, rows['ratio'])}\n",
        encoding="utf-8",
    )


def coverage(
    runs: int, correlation: float, *, series: int, samples: int, seed: int
) -> tuple[float, float, float, float]:
    """Shares of intervals that hold 1.

    Returns:
        Of a median: in blocks, and one by one; of a ratio: as it is, and widened.
    """
    generator = np.random.default_rng(seed)
    hits = np.zeros(4)
    for number in range(series):
        first, second, control = latencies(runs, correlation, generator)
        ratio = ratio_estimate(second, first, samples=samples, seed=number)
        control_ratio = ratio_estimate(control, first, samples=samples, seed=number)
        hits += [
            holds_one(median_estimate(first, samples=samples, seed=number)),
            holds_one(one_by_one(first, samples=samples, generator=generator)),
            holds_one(ratio),
            holds_one(widen(ratio, control_ratio)),
        ]
    blocks, singly, plain, widened = (hits / series).tolist()
    return blocks, singly, plain, widened


def latencies(runs: int, correlation: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Three equal models with median 1, [3, runs]."""
    values = generator.normal(size=(3, _BEFORE + runs))
    for step in range(1, _BEFORE + runs):
        values[:, step] += correlation * values[:, step - 1]
    return np.exp(SCATTER * values[:, _BEFORE:])


def one_by_one(
    values: NDArray[np.float64], *, samples: int, generator: np.random.Generator
) -> Estimate:
    """The usual percentile bootstrap of a median."""
    drawn = values[generator.integers(len(values), size=(samples, len(values)))]
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return Estimate(float(np.median(values)), float(low), float(high))


def holds_one(estimate: Estimate) -> bool:
    return estimate.low <= 1.0 <= estimate.high


if __name__ == "__main__":
    sys.exit(main())
