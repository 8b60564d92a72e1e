"""Energy of a text, with a counter that only the runs advance."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from pipeline.energy import EnergyMeter
from serve.energy import BLOCK_MS, BLOCKS, joules_per_text


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "energy_uj").write_text("0")
    return tmp_path


def consumer(package: Path, microjoules: int, numbers: list[int]) -> Callable[[int], None]:
    """A model whose every run takes so much, from a counter that turns over at a million."""

    def run(number: int) -> None:
        numbers.append(number)
        counter = package / "energy_uj"
        counter.write_text(str((int(counter.read_text()) + microjoules) % 1_000_000))

    return run


def test_each_model_gets_what_its_own_runs_took(package: Path) -> None:
    frugal: list[int] = []
    hungry: list[int] = []
    models = [consumer(package, 3000, frugal), consumer(package, 7000, hungry)]
    found = joules_per_text(
        EnergyMeter((package,), (1_000_000,)),
        models,
        [BLOCK_MS / 10, BLOCK_MS / 100],
        runs=4,
        texts=2,
        random=Random(0),
    )
    assert found == pytest.approx([0.0015, 0.0035])
    # Whole passes over the runs, as many as fill a block: three of 4 x 100 ms, 25 of 4 x 10 ms.
    assert frugal == [0, 1, 2, 3] * 3 * BLOCKS
    assert hungry == [0, 1, 2, 3] * 25 * BLOCKS


def test_a_counter_that_is_taken_away_gives_none(package: Path) -> None:
    model = consumer(package, 1, [])

    def run(number: int) -> None:
        model(number)
        (package / "energy_uj").rename(package / "gone")

    meter = EnergyMeter((package,), (1_000_000,))
    found = joules_per_text(meter, [run], [BLOCK_MS], runs=1, texts=1, random=Random(0))
    assert found == [None]
