"""Whether the timing of a cell can be trusted, and how far ratios are to be widened.

The first model is there twice. What its copy took longer or shorter is no property of a model: it
is what the machine, the order and the place in memory do to two equal models, and so what any two
models may differ by for no reason of theirs.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Estimate, Steadiness
from pipeline.bootstrap import ratio_estimate

__all__ = [
    "DRIFT_LIMIT",
    "VARIATION_LIMIT",
    "Surroundings",
    "judge_steadiness",
    "variation_and_drift",
    "widen",
]

# Conventions of ours; docs/bench.md gives the reasons.
VARIATION_LIMIT = 0.10
DRIFT_LIMIT = 0.05
CONTROL_LIMIT = 1.05
SURE_CONTROL_LIMIT = 1.02
OTHERS_LIMIT = 0.10
UNUSABLE_SPREAD = 0.50
UNUSABLE_CONTROL = 1.25


@dataclass(frozen=True)
class Surroundings:
    """What was seen beside the latencies.

    Attributes:
        warm: the runs before timing came to a stable time.
        threads: of each model.
        cores: that the process may use.
        busy_elsewhere: cores of those that others kept busy; None where that is unknown.
    """

    warm: bool
    threads: int
    cores: int
    busy_elsewhere: float | None


def judge_steadiness(
    first_ms: NDArray[np.float64],
    control_ms: NDArray[np.float64],
    tokens: NDArray[np.int64],
    surroundings: Surroundings,
    *,
    bootstrap_samples: int,
    seed: int,
) -> Steadiness:
    """Judge one cell.

    Args:
        first_ms: the first model's runs, [repetitions] in their order.
        control_ms: its copy's runs of the same repetitions, [repetitions].
        tokens: of each run, padding included, [repetitions].
        surroundings: what was seen beside.
        bootstrap_samples: behind the control's interval.
        seed: of the bootstrap.
    """
    adjusted_ms = _without_length(first_ms, tokens)
    variation, drift = variation_and_drift(adjusted_ms)
    lower, middle, upper = np.percentile(adjusted_ms, (10.0, 50.0, 90.0))
    spread = float((upper - lower) / middle)
    control = ratio_estimate(control_ms, first_ms, samples=bootstrap_samples, seed=seed)
    unusable = []
    if spread > UNUSABLE_SPREAD:
        unusable.append(
            f"The first model's runs spread over {spread:.0%} of their median (10th to 90th "
            f"percentile); above {UNUSABLE_SPREAD:.0%}, a median means little."
        )
    if _off(control.value) > math.log(UNUSABLE_CONTROL):
        unusable.append(
            f"A second copy of the first model took {control.value:.2f} times the first's time; "
            f"beyond a factor of {UNUSABLE_CONTROL:g}, a ratio of two models means little."
        )
    noisy = [
        *_scatter_reasons(variation, drift),
        *([] if unusable else _control_reasons(control)),
        *_surrounding_reasons(surroundings),
    ]
    verdict = "unusable" if unusable else "noisy" if noisy else "steady"
    return Steadiness(
        coefficient_of_variation=variation,
        drift=drift,
        control=control,
        warm=surroundings.warm,
        verdict=verdict,  # type: ignore[arg-type]
        reasons=(*unusable, *noisy),
    )


def variation_and_drift(latencies_ms: NDArray[np.float64]) -> tuple[float, float]:
    """Scatter and trend of equal runs, [repetitions] in their order.

    Returns:
        Standard deviation over mean; median of the second half over that of the first, minus 1.
    """
    half = len(latencies_ms) // 2
    variation = float(np.std(latencies_ms) / np.mean(latencies_ms))
    drift = float(np.median(latencies_ms[-half:]) / np.median(latencies_ms[:half])) - 1.0
    return variation, drift


def widen(ratio: Estimate, control: Estimate) -> Estimate:
    """Stretch a ratio's interval at both ends by the factor that the control is off."""
    factor = math.exp(_off(control.value))
    return Estimate(ratio.value, ratio.low / factor, ratio.high * factor)


def _without_length(
    latencies_ms: NDArray[np.float64], tokens: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Latencies as if all runs had the same tokens: texts of different length are no noise.

    Divided by a parabola in the tokens, fitted by least squares of the relative error: a model's
    work grows with the tokens and, in attention, with their square.
    """
    # One term a five runs at most, so that the curve does not go through the noise.
    degree = min(2, len(np.unique(tokens)) - 1, len(tokens) // 5 - 1)
    if degree < 1:
        return latencies_ms
    fitted = Polynomial.fit(tokens, latencies_ms, degree, w=1.0 / latencies_ms)
    expected = np.maximum(fitted(tokens), latencies_ms.min() / 2.0)
    return np.asarray(latencies_ms / expected * np.median(latencies_ms))


def _scatter_reasons(variation: float, drift: float) -> list[str]:
    reasons = []
    if variation > VARIATION_LIMIT:
        reasons.append(
            f"The first model's runs vary by {variation:.0%} (standard deviation over mean; "
            f"steady is up to {VARIATION_LIMIT:.0%})."
        )
    if abs(drift) > DRIFT_LIMIT:
        reasons.append(
            f"The first model's runs drift by {drift:+.0%} from their first half to their second "
            f"(steady is up to {DRIFT_LIMIT:.0%})."
        )
    return reasons


def _control_reasons(control: Estimate) -> list[str]:
    sure = _off(control.value) > math.log(SURE_CONTROL_LIMIT) and not (
        control.low <= 1.0 <= control.high
    )
    if not sure and _off(control.value) <= math.log(CONTROL_LIMIT):
        return []
    return [
        f"A second copy of the first model took {control.value:.3f} times the first's time "
        f"({control.low:.3f} to {control.high:.3f}), and should take the same."
    ]


def _surrounding_reasons(seen: Surroundings) -> list[str]:
    reasons = []
    if not seen.warm:
        reasons.append("The runs before timing did not come to a stable time.")
    idle = max(0, seen.cores - seen.threads)
    if seen.busy_elsewhere is not None and seen.busy_elsewhere > idle + OTHERS_LIMIT:
        threads = "1 thread leaves" if seen.threads == 1 else f"{seen.threads} threads leave"
        reasons.append(
            f"Others kept {seen.busy_elsewhere:.1f} of the {seen.cores} usable cores busy, and "
            f"{threads} {idle} to them."
        )
    return reasons


def _off(ratio: float) -> float:
    """Distance from 1 as a factor, in its logarithm."""
    return abs(math.log(ratio))
