"""From two files to a verdict, or to a new baseline."""

import shutil
from dataclasses import replace

from pipeline.artifacts.benchmark import Benchmark, read_benchmark
from pipeline.artifacts.benchmark.file import KIND, SCHEMA_VERSION
from pipeline.artifacts.files import read_json, staged_file
from pipeline.config import CheckConfig
from pipeline.errors import MachineError, PipelineError
from pipeline.gate.comparable import check_comparable
from pipeline.gate.judge import judge
from pipeline.gate.judgement import GateResult

__all__ = ["check"]


def check(config: CheckConfig) -> GateResult:
    """Hold a benchmark against a baseline; with ``update``, make it the baseline.

    Raises:
        ArtifactError: one of the files is missing, corrupt, or of another schema.
        DataError: the two did not measure the same.
        MachineError: with ``update``, the benchmark has unusable timings, which no later one could
            be held against, or the baseline cannot be written.
    """
    bench = read_benchmark(config.bench)
    return _update(bench, config) if config.update else _judge(bench, config)


def _judge(bench: Benchmark, config: CheckConfig) -> GateResult:
    baseline = read_benchmark(config.baseline)
    check_comparable(bench, baseline, bench_path=config.bench, baseline_path=config.baseline)
    return judge(bench, baseline, config)


def _update(bench: Benchmark, config: CheckConfig) -> GateResult:
    unusable = [m.cell.name for m in bench.cells if m.steadiness.verdict == "unusable"]
    if unusable and not config.allow_unmeasured:
        raise MachineError(
            f"{config.bench} is no baseline: the timing of {unusable[0]} is unusable; run "
            "`smp-pipeline bench` again on a quieter machine, or give --allow-unmeasured"
        )
    if config.baseline.exists():
        # What is replaced must be a benchmark: a mistyped path must not cost another file.
        read_json(config.baseline, kind=KIND, schema_version=SCHEMA_VERSION)
        try:
            result = _judge(bench, config)
        except PipelineError as error:
            result = GateResult("updated", config.confidence, (), (str(error),))
    else:
        note = f"{config.baseline} is the first baseline."
        result = GateResult("updated", config.confidence, (), (note,))
    with staged_file(config.baseline) as scratch:
        shutil.copyfile(config.bench, scratch)
    return replace(result, verdict="updated")
