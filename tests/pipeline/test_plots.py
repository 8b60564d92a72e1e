import dataclasses
import warnings
from pathlib import Path

import pytest

from pipeline.artifacts.benchmark import Benchmark, Estimate
from pipeline.plots import plot_benchmark


@pytest.mark.parametrize("name", ["$x_{", "_hidden", "a%b\\n", "ein großer Name"])
def test_any_name_of_a_model_can_be_drawn(benchmark: Benchmark, tmp_path: Path, name: str) -> None:
    model = dataclasses.replace(benchmark.models[0], name=name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_benchmark(dataclasses.replace(benchmark, models=(model,)), tmp_path / "plot")
    assert (tmp_path / "plot").stat().st_size > 10_000


def test_a_value_outside_its_interval_and_many_models_can_be_drawn(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    odd = {"accuracy": Estimate(0.5, 0.6, 0.7)}
    models = tuple(
        dataclasses.replace(benchmark.models[0], name=f"model {index}", metrics=odd)
        for index in range(20)
    )
    plot_benchmark(dataclasses.replace(benchmark, models=models), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
