"""All stages on the real MiniLM and real reviews, from one recipe, with few steps."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

DATA = Path(__file__).parents[1] / "demo-data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not (DATA / "model").is_dir(), reason="run `make demo-data` first"),
]


@pytest.fixture(scope="module")
def outputs(smp_pipeline, tmp_path_factory):
    directory = tmp_path_factory.mktemp("end-to-end")
    common = {
        "model": str(DATA / "model"),
        "train-file": str(DATA / "train.csv"),
        "validation-file": str(DATA / "validation.csv"),
        "max-train-samples": 512,
        "max-validation-samples": 200,
        "max-length": 48,
        "steps": 16,
        "evaluations": 1,
    }
    runs = {"pruned": {"density": 0.5}, "dense": {"method": "finetune", "steps": 2}}
    recipe = {
        "train": [
            {**common, **settings, "output-dir": str(directory / f"{name}-run")}
            for name, settings in runs.items()
        ],
        "export": [
            {
                "run": str(directory / f"{run}-run"),
                "format": form,
                "output-dir": str(directory / f"{run}-{form}"),
            }
            for run, form in (("dense", "dense"), ("pruned", "dense"), ("pruned", "packed"))
        ],
        "bench": {
            "models": [
                str(directory / name) for name in ("dense-dense", "pruned-dense", "pruned-packed")
            ],
            "validation-file": str(DATA / "validation.csv"),
            "max-samples": 200,
            "output": str(directory / "bench.json"),
            "batch-sizes": [1],
            "sequence-lengths": [16],
            "repetitions": 5,
            "bootstrap-samples": 100,
            "startups": 1,
        },
        "check": {
            "bench": str(directory / "bench.json"),
            "baseline": str(directory / "bench.json"),
            "allow-unmeasured": True,  # the machine may be busy
        },
    }
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    done = subprocess.run(
        [smp_pipeline, "run", str(directory / "recipe.yaml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return directory


def manifest(directory):
    return json.loads((directory / "manifest.json").read_text())


def test_pruning_meets_the_density_and_beats_a_constant_answer(outputs):
    run = manifest(outputs / "pruned-run")
    assert run["density"] == pytest.approx(0.5, abs=1e-6)
    assert len(run["matrices"]) == 36
    # 780 of the 1,500 validation reviews are negative.
    assert run["metrics"]["accuracy"] > 0.65


def test_the_graph_scores_what_training_scored(outputs):
    models = json.loads((outputs / "bench.json").read_text())["models"]
    pruned = manifest(outputs / "pruned-run")["metrics"]["accuracy"]
    # Rounding may turn one label of 200, above all that of the packed values.
    for model in models[1:]:
        accuracy = model["quality"]["metrics"]["accuracy"]["value"]
        assert accuracy == pytest.approx(pruned, abs=0.0051)


def test_the_packed_file_is_smaller_than_the_dense_one(outputs):
    dense = (outputs / "pruned-dense" / "model.onnx").stat().st_size
    packed = (outputs / "pruned-packed" / "model.onnx").stat().st_size
    # 10,616,832 pruned weights: 4 bytes each dense, 2 bytes for half of them and a bit each packed;
    # 30,522 tokens and 512 positions of 384 features: 4 bytes dense, 2 bytes packed.
    saved = 10_616_832 * (4 - 1 - 1 / 8) + (30_522 + 512) * 384 * 2
    assert dense - packed == pytest.approx(saved, rel=0.01)


def test_all_that_was_promised_is_there(outputs):
    for name in ("dense-dense", "pruned-dense", "pruned-packed"):
        files = {path.name for path in (outputs / name).iterdir()}
        promised = {"model.onnx", "tokenizer.json", "config.json", "manifest.json", "README.md"}
        assert promised <= files
    assert not list(outputs.glob("*.partial"))
