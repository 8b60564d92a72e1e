"""What the measurement of file sizes counts, on a tiny model."""

import pytest

from benchmarks.size_measure import bits_per_weight, measure_delta
from benchmarks.size_models import make_base_model, make_random_run
from benchmarks.size_table import write_table
from export import export_delta, export_run
from pipeline.artifacts.delta import read_delta
from pipeline.artifacts.run import read_run
from pipeline.config import ExportConfig

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.mark.slow
def test_sizes_of_a_random_run(tiny_bert, reviews, tmp_path):
    base = make_base_model(tmp_path, tiny_bert / "config.json", str(tiny_bert), seed=0)
    # The tiny model takes 64 tokens.
    run = make_random_run(base, 0.1, reviews[1], seed=0, max_length=32)
    manifest = read_run(run)
    assert manifest.density == pytest.approx(0.1, abs=0.02)
    bits = {}
    for form in ("dense", "packed"):
        directory = tmp_path / form
        export_run(ExportConfig(run=run, output_dir=directory, format=form, values="fp16"))
        bits[form] = bits_per_weight(directory / "model.onnx", manifest)
    # A tensor's name and shape count as well, which a tiny matrix shows.
    assert bits["dense"] == pytest.approx(16.0, rel=0.1)
    export_delta(ExportConfig(run=run, output_dir=tmp_path / "delta", format="delta"))
    bound = read_delta(tmp_path / "delta").bound_bits_per_weight
    assert bound + 16 * manifest.density < bits["packed"] < bits["dense"]

    delta = measure_delta(tmp_path / "delta")
    assert 0 < delta["mask_bytes"] < delta["directory_bytes"]
    found = {
        "model_bytes": 1000,
        "bits_per_weight": bits["dense"],
        "load_ms": 2.0,
        "peak_rss_bytes": 3_000_000,
        "largest_logit_difference": 0.0,
    }
    model = {
        "kind": "random",
        "run": run.name,
        "density": manifest.density,
        "weights": 10,
        "entropy_bits": bound,
        "value_bits": {"fp16": 1.6},
        "texts": 4,
        "largest_logit": 1.0,
        "formats": {"dense": found, "packed": {**found, "model_bytes": 250}},
        "delta": {**delta, "decode_cpu_seconds": 0.001},
    }
    write_table({"machine": {}, "versions": {}, "models": [model]}, tmp_path / "size.md")
    table = (tmp_path / "size.md").read_text(encoding="utf-8")
    assert f"| packed | 250 | 0.250 | {bits['dense']:.3f} | 2 | 1.00 | 3 | 0 |" in table
