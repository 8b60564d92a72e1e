"""The gate of continuous integration: is a benchmark worse than an earlier one?

Latency is judged by its ratio to the first model of the same benchmark, never in milliseconds:
the two benchmarks may come from two machines.
"""

from pipeline.gate.check import check
from pipeline.gate.github import report_to_github, wants_github
from pipeline.gate.judgement import GateResult, Judgement
from pipeline.gate.junit import write_junit
from pipeline.gate.terminal import print_gate

__all__ = [
    "GateResult",
    "Judgement",
    "check",
    "print_gate",
    "report_to_github",
    "wants_github",
    "write_junit",
]
