from pathlib import Path

import pytest

from pipeline.config import BenchConfig, ExportConfig, TrainConfig
from pipeline.recipe import read_recipe, resolve

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_valid_and_each_stage_reads_what_an_earlier_one_writes(path: Path) -> None:
    written: set[Path] = set()
    for _, config in resolve(read_recipe(path), [], source=str(path)):
        if isinstance(config, TrainConfig):
            written.add(config.output_dir)
        elif isinstance(config, ExportConfig):
            assert config.run in written
            written.add(config.output_dir)
        elif isinstance(config, BenchConfig):
            assert set(config.models) <= written


def test_there_is_a_recipe_for_the_demo() -> None:
    assert "demo.yaml" in [path.name for path in RECIPES]
