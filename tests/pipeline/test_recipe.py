"""One file for all stages: its form, its order, and what flags change in it."""

from pathlib import Path

import pytest

from pipeline.config import BenchConfig, CheckConfig, ExportConfig, ReportConfig, TrainConfig
from pipeline.errors import ConfigurationError
from pipeline.recipe import STAGES, read_recipe, resolve

RECIPE = """
bench:
  models: [m1, m2]
  validation-file: v.csv
train:
  - {model: m, train-file: t.csv, validation-file: v.csv, density: 0.5, output-dir: r1}
  - {model: m, train-file: t.csv, validation-file: v.csv, density: 1e-1, output-dir: r2}
export:
  - {run: r1, output-dir: m1}
  - {run: r2, output-dir: m2, format: packed}
report:
  bench: bench.json
gate:
  bench: bench.json
  baseline: baseline.json
"""


@pytest.fixture
def resolved(tmp_path):
    def run(*flags, text=RECIPE):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return resolve(read_recipe(path), flags, source="recipe.yaml")

    return run


def refused(resolved, message, *flags, text=RECIPE):
    with pytest.raises(ConfigurationError, match=message) as error:
        resolved(*flags, text=text)
    assert "\n" not in str(error.value)


def test_stages_run_in_their_order_and_lists_in_the_file_s(resolved):
    stages = resolved()
    assert [name for name, _ in stages] == [
        "train",
        "train",
        "export",
        "export",
        "bench",
        "report",
        "gate",
    ]
    assert [type(config) for _, config in stages] == [
        *[TrainConfig] * 2,
        *[ExportConfig] * 2,
        BenchConfig,
        ReportConfig,
        CheckConfig,
    ]
    assert [config.density for _, config in stages[:2]] == [0.5, 0.1]
    assert stages[4][1].models == (Path("m1"), Path("m2"))
    assert list(STAGES) == ["train", "export", "bench", "report", "gate"]


def test_flags_that_turn_something_off_are_those_of_the_command(resolved):
    stages = resolved("--no-github", "--export.2.no-fold-constants", "--train.no-resume")
    assert stages[-1][1].github is False
    assert [config.fold_constants for name, config in stages if name == "export"] == [True, False]
    refused(resolved, "--no-zzz is a flag of no stage", "--no-zzz")
    refused(resolved, "train: density must be a number, got False", "--no-density")


def test_flags_win_over_the_file(resolved):
    stages = resolved("--density", "0.05", "--train.seed=3", "--export.2.opset", "21", "--resume")
    train, exports = [c for n, c in stages if n == "train"], [c for n, c in stages if n == "export"]
    assert [(c.density, c.seed, c.resume) for c in train] == [(0.05, 3, True)] * 2
    assert [c.opset for c in exports] == [20, 21]


def test_the_gate_under_its_earlier_name(resolved):
    text = "check: {bench: a.json, baseline: b.json}"
    ((name, config),) = resolved("--check.max-size-ratio", "2", "--gate.confidence=0.9", text=text)
    assert (name, config.max_size_ratio, config.confidence) == ("gate", 2.0, 0.9)
    both = f"{text}\ngate: {{bench: a.json, baseline: b.json}}"
    refused(resolved, "gate is there twice, once under its earlier name; keep one", text=both)


def test_a_flag_given_several_times_makes_a_list(resolved):
    bench = resolved("--batch-sizes", "1", "--batch-sizes", "2", "--batch-sizes=16")[4][1]
    assert bench.batch_sizes == (1, 2, 16)


def test_a_negative_number_is_a_value(resolved):
    assert resolved("--density-steps", "-100")[0][1].density_steps == -100


def test_the_recipe_is_not_changed(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    recipe = read_recipe(path)
    resolve(recipe, ["--density", "0.05"], source="")
    assert recipe["train"][0]["density"] == 0.5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output-dir", "x"], "flag of several stages; write --train.output-dir or --export."),
        (["--densty", "0.1"], "--densty is a flag of no stage in the recipe; did you mean --dens"),
        (["--zzz"], "--zzz is a flag of no stage in the recipe; see --help of each stage"),
        (["--train.zzz", "1"], "--train.zzz: write --stage.key with one of train, export, bench"),
        (["--trian.seed", "1"], "--trian.seed: write --stage.key"),
        (["--train.1.2.seed", "1"], "write --stage.key"),
        (["--train.3.seed", "1"], "--train.3.seed: the recipe has 2 runs of train"),
        (["--train.0.seed", "1"], "the recipe has 2 runs of train"),
        (["--train.x.seed", "1"], "the recipe has 2 runs of train"),
        (["density", "0.1"], "'density' is no flag; flags start with --"),
        (["--density", "1.5"], "--density must be greater than 0 and at most 1, got 1.5"),
        (["--density", "[0.1"], r"--density: '\[0.1' is not valid YAML"),
        (["--train.seed"], "recipe.yaml: train: seed must be a whole number, got True"),
    ],
)
def test_a_wrong_flag_is_named(resolved, flags, message):
    refused(resolved, message, *flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "give at least one of train, export, bench, report, gate"),
        ("- train", "give at least one of train"),
        ("train: [", r"not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("trian: {}", "unknown stage 'trian'; stages are train, export, bench, report, gate"),
        ("train: 3", "train must be a mapping of settings, or a list of mappings"),
        ("train: []", "train must be a mapping"),
        ("train: [3]", "train must be a mapping"),
        ("gate: {bench: a.json}", "recipe.yaml: gate: --baseline is needed"),
        (
            "gate: {bench: a.json, base-line: b}",
            "unknown key 'base-line' .did you mean 'base",
        ),
        ("export: {run: r, output-dir: m, opset: new}", "export: opset must be a whole number"),
    ],
)
def test_a_wrong_recipe_is_named(resolved, text, message):
    refused(resolved, message, text=text)


def test_a_missing_recipe_a_directory_and_bytes(tmp_path):
    with pytest.raises(ConfigurationError, match=r"RECIPE .*nope.yaml: no such file"):
        read_recipe(tmp_path / "nope.yaml")
    with pytest.raises(ConfigurationError, match="RECIPE"):
        read_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"train: \xff")
    with pytest.raises(ConfigurationError, match="not valid YAML"):
        read_recipe(tmp_path / "latin.yaml")


def test_code_in_yaml_is_not_run(resolved):
    refused(resolved, "not valid YAML", text="train: !!python/object/apply:os.getcwd []")
