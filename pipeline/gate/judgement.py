"""What the gate says: one comparison, and all of them."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["GateResult", "Judgement"]


@dataclass(frozen=True)
class Judgement:
    """One comparison.

    Attributes:
        model: the model's name.
        kind: what the limit is for.
        quantity: what was compared, for people.
        limit: the largest change allowed, in the unit of ``change``.
        baseline: the earlier value; None if there is none. Sizes are in MB (1,000,000 bytes).
        bench: the value to judge; None if there is none.
        change: how much worse it is: points (hundredths) lost, or growth as a ratio.
        p_value: probability of such a change by chance alone; None where there is no chance.
        detectable: the smallest change that the two files surely tell from chance.
        verdict: ``unmeasured`` is what the machine was too unsteady for; ``not judged`` never
            fails the gate.
        reason: why there is no verdict; empty otherwise.
    """

    model: str
    kind: Literal["quality", "size", "latency"]
    quantity: str
    limit: float
    baseline: float | None = None
    bench: float | None = None
    change: float | None = None
    p_value: float | None = None
    detectable: float | None = None
    verdict: Literal["passed", "failed", "unmeasured", "not judged"] = "passed"
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What was found, in a line."""
        what = f"{self.model}: {self.quantity}"
        if self.change is None:
            return f"{what} was not judged: {self.reason}"
        by = (
            f"{self.change:.3g} points lost, {self.limit:g} allowed"
            if self.kind == "quality"
            else f"{self.change:.4g} times the baseline's, {self.limit:g} allowed"
        )
        chance = "" if self.p_value is None else f", p = {self.p_value:.2g}"
        return f"{what} went from {self.baseline:.4g} to {self.bench:.4g} ({by}{chance})"


@dataclass(frozen=True)
class GateResult:
    """The gate's verdict.

    Attributes:
        verdict: ``failed``: a comparison failed. ``unmeasured``: none failed, and some could not
            be judged. ``updated``: the benchmark is the new baseline.
        confidence: chance that a check passes where nothing has changed.
        judgements: all comparisons, model by model.
        notes: what makes the comparison less sure, a sentence each.
    """

    verdict: Literal["passed", "failed", "unmeasured", "updated"]
    confidence: float
    judgements: tuple[Judgement, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether a release may go on."""
        return self.verdict in ("passed", "updated")

    def of_verdict(self, verdict: str) -> list[Judgement]:
        """The comparisons that ended so."""
        return [judgement for judgement in self.judgements if judgement.verdict == verdict]

    @property
    def summary(self) -> str:
        """The verdict in a line."""
        failed, unmeasured = len(self.of_verdict("failed")), len(self.of_verdict("unmeasured"))
        match self.verdict:
            case "failed":
                return f"failed: {failed} of {len(self.judgements)} comparisons"
            case "unmeasured":
                return f"could not be judged: {unmeasured} of {len(self.judgements)} comparisons"
        return self.verdict
