import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.benchmark import Benchmark, read_benchmark, write_benchmark
from pipeline.errors import ArtifactError


@pytest.fixture
def written(benchmark: Benchmark, tmp_path: Path) -> Path:
    write_benchmark(tmp_path / "bench.json", benchmark)
    return tmp_path / "bench.json"


def change(path: Path, edit: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_file_says_what_it_is(written: Path) -> None:
    content = json.loads(written.read_text(encoding="utf-8"))
    assert content["kind"] == "smp-benchmark"
    assert content["schema_version"] == 1


def test_keys_of_a_later_writer_are_ignored(written: Path, benchmark: Benchmark) -> None:
    change(written, lambda content: content["models"][0].update(energy_joules=1.0))
    assert read_benchmark(written) == benchmark


def test_a_file_from_before_there_were_profiles_is_read(
    written: Path, benchmark: Benchmark
) -> None:
    change(written, lambda content: [model.pop("profile") for model in content["models"]])
    assert read_benchmark(written) == benchmark


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(schema_version=2), "schema version 2.*upgrade smp-pipeline"),
        (lambda c: c.update(kind="smp-model"), "expected a file of kind 'smp-benchmark'"),
        (lambda c: c.pop("threads"), "threads is missing"),
        (lambda c: c.update(threads="two"), "threads must be int, got 'two'"),
        (lambda c: c.update(models=[]), "it has no models"),
        (lambda c: c["models"][1].update(name="right"), "two models have the same name"),
        (lambda c: c["data"].update(rows=47), "data.rows is 47"),
        (lambda c: c["data"]["references"].pop(), "data.rows is 48"),
        (lambda c: c["data"]["references"].__setitem__(3, "1"), r"references\[3\] must be int"),
        (lambda c: c.update(noise=[]), "the latency grid is empty"),
        (lambda c: c["noise"].append(c["noise"][0]), "names a cell twice"),
        (lambda c: c["models"][0]["latency"].pop(), "right: its latency cells are not"),
        (
            lambda c: c["models"][1]["latency"][0]["ratio"].update(value=0.0),
            "inverted: a latency is not positive",
        ),
        (lambda c: c["models"][0]["size"].update(zipped_bytes=0), "a size is not positive"),
        (lambda c: c["models"][0]["metrics"].pop("accuracy"), "it has no accuracy"),
        (lambda c: c["models"][0]["predictions"]["logits"].pop(), "its logits do not fit"),
        (lambda c: c["models"][0]["predictions"]["logits"][5].pop(), "its logits do not fit"),
        (lambda c: c["models"][0]["predictions"]["labels"].pop(), "its predicted labels"),
        (
            lambda c: c["models"][0]["predictions"]["labels"].__setitem__(0, 2),
            "its predicted labels",
        ),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(
    written: Path, edit: Callable[[Any], object], message: str
) -> None:
    change(written, edit)
    with pytest.raises(ArtifactError, match=message) as caught:
        read_benchmark(written)
    assert str(written) in str(caught.value)


def test_a_truncated_file_is_refused(written: Path) -> None:
    written.write_text(written.read_text(encoding="utf-8")[:500], encoding="utf-8")
    with pytest.raises(ArtifactError, match="is corrupt"):
        read_benchmark(written)
