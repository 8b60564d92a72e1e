"""What a run, a model and a benchmark hold, as facts and as tables."""

import json
import shutil

import pytest

from pipeline.artifacts.files import directory_size_bytes
from pipeline.artifacts.manifest import to_json
from pipeline.artifacts.masks import read_masks, write_masks
from pipeline.artifacts.run import read_run
from pipeline.errors import ArtifactError
from pipeline.info import describe, print_description


def test_a_run_directory(tiny_run, capsys):
    facts = json.loads(json.dumps(describe(tiny_run)))
    manifest = read_run(tiny_run)
    assert (facts["kind"], facts["density"]) == ("smp-run", manifest.density)
    assert facts["size_bytes"] == directory_size_bytes(tiny_run)
    by_type = facts["density_by_type"]
    assert {name: set(row) for name, row in by_type.items()} == {
        matrix.matrix_type: {"0", "1"} for matrix in manifest.matrices.values()
    }
    for matrix in manifest.matrices.values():
        assert by_type[matrix.matrix_type][str(matrix.layer)] == matrix.density
    for layer, density in facts["density_by_layer"].items():
        inside = [matrix for matrix in manifest.matrices.values() if str(matrix.layer) == layer]
        assert density == sum(m.kept for m in inside) / sum(m.size for m in inside)
    print_description(facts)
    out = capsys.readouterr().out
    assert "20 steps" in out
    assert "attention" in out


def test_the_masks_of_a_run_and_what_they_leave_empty(tiny_run, tmp_path, capsys):
    facts = json.loads(json.dumps(describe(tiny_run)))
    assert facts["masks_bytes"] == (tiny_run / "masks.safetensors").stat().st_size
    # One bit a weight and a header are more than masks of density 0.3 need.
    assert 0.8 < facts["bound_bits_per_weight"] < 0.89 < 1 < facts["bits_per_weight"]
    assert (facts["heads"], facts["neurons"]) == (2 * 4, 2 * 64)
    assert (facts["empty_heads"], facts["empty_neurons"]) == ({}, {})

    run = shutil.copytree(tiny_run, tmp_path / "run")
    masks = read_masks(run / "masks.safetensors")
    masks["encoder.layer.1.attention.self.value.weight"][8:24] = False  # heads 1 and 2 of four
    masks["encoder.layer.0.output.dense.weight"][:, :5] = False
    write_masks(run / "masks.safetensors", masks)
    facts = json.loads(json.dumps(describe(run)))
    assert facts["empty_heads"] == {"1": [1, 2]}
    assert facts["empty_neurons"] == {"0": 5}
    print_description(facts)
    out = capsys.readouterr().out
    assert "2 of 8 (layer 1: 1, 2)" in out
    assert "5 of 128 (layer 0: 5)" in out
    bits = facts["bound_bits_per_weight"]
    assert f"{facts['bound_bytes']:,.0f} bytes, {bits:.3f} bits a weight" in out


def test_a_run_that_does_not_say_how_many_heads_it_has(tiny_run, tmp_path, capsys):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    content = json.loads((run / "manifest.json").read_text())
    del content["base_model"]["attention_heads"]
    (run / "manifest.json").write_text(json.dumps(content))
    facts = describe(run)
    assert facts["heads"] is facts["empty_heads"] is None
    print_description(facts)
    out = capsys.readouterr().out
    assert "empty heads" not in out
    assert "empty neurons" in out


def test_the_densities_of_many_layers_fit_80_columns(tiny_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    facts = describe(tiny_run)
    for row in facts["density_by_type"].values():
        row.update({str(layer): 0.125 for layer in range(24)})
    print_description(facts)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("0.125") == 24 * len(facts["density_by_type"])
    assert "…" not in out


def test_a_model_directory(make_model, tmp_path, capsys):
    facts = describe(make_model(tmp_path / "model", labels=("no", "yes")))
    assert (facts["kind"], facts["format"]) == ("smp-model", "dense")
    print_description(facts)
    out = capsys.readouterr().out
    assert "no, yes" in out
    assert "dense, opset 20" in out
    assert "density by layer" not in out


def test_a_model_has_the_densities_of_its_run(tiny_run, make_model, tmp_path, capsys):
    model = make_model(tmp_path / "model", run=to_json(read_run(tiny_run)))
    facts = json.loads(json.dumps(describe(model)))
    for name in ("density_by_type", "density_by_layer", "bound_bytes", "bound_bits_per_weight"):
        assert facts[name] == describe(tiny_run)[name]
    print_description(facts)
    out = capsys.readouterr().out
    assert "density by layer and matrix type" in out
    for row in facts["density_by_type"].values():
        assert all(f"{density:.3f}" in out for density in row.values())


def test_a_delta(tiny_run, tmp_path, capsys):
    from export.delta_stage import export_delta
    from pipeline.config import ExportConfig

    delta = tmp_path / "delta"
    manifest = export_delta(ExportConfig(run=tiny_run, output_dir=delta, format="delta"))
    facts = json.loads(json.dumps(describe(delta)))
    assert (facts["kind"], facts["density"]) == ("smp-delta", manifest.run.density)
    assert facts["task"]["labels"] == ["0", "1"]
    assert facts["size_bytes"] == directory_size_bytes(delta)
    assert facts["bits_per_weight"] == manifest.bits_per_weight
    print_description(facts)
    out = capsys.readouterr().out
    assert f"{manifest.masks_bytes:,} bytes, {manifest.bits_per_weight:.3f} bits a weight" in out
    assert "from the base model: tokenizer.json" in out


def test_a_benchmark(benchmark, tmp_path, capsys):
    from pipeline.artifacts.benchmark import write_benchmark

    write_benchmark(tmp_path / "bench.json", benchmark)
    facts = json.loads(json.dumps(describe(tmp_path / "bench.json")))
    assert len(facts["models"]) == 2
    print_description(facts)
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "{", "[]", '{"kind": "other"}'])
def test_a_directory_that_is_none_of_them(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"no run directory, model directory or bench\.json"):
        describe(tmp_path)


def test_nothing_and_a_file_that_is_no_benchmark(tmp_path):
    with pytest.raises(ArtifactError, match="nope: no run directory"):
        describe(tmp_path / "nope")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"a\.json"):
        describe(tmp_path / "a.json")


def test_a_run_with_layers_of_different_matrices_and_numbers_that_are_missing(
    tiny_run, tmp_path, capsys
):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    content = json.loads((run / "manifest.json").read_text())
    first = next(iter(content["matrices"]))
    del content["matrices"][first]
    content["metrics"] = {"pearson": None}  # NaN, which JSON lacks
    (run / "manifest.json").write_text(json.dumps(content))
    print_description(describe(run))
    assert "nan" in capsys.readouterr().out
