"""A benchmark whose models have other names."""

import dataclasses

from pipeline.artifacts.benchmark import Benchmark


def renamed(benchmark: Benchmark, *names: str) -> Benchmark:
    """The benchmark with the first models under these names."""
    models = [
        dataclasses.replace(model, name=name)
        for model, name in zip(benchmark.models, names, strict=False)
    ]
    rest = benchmark.models[len(models) :]
    return dataclasses.replace(benchmark, models=(*models, *rest))
