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
    assert content["schema_version"] == 2


def test_keys_of_a_later_writer_are_ignored(written: Path, benchmark: Benchmark) -> None:
    change(written, lambda content: content["models"][0].update(energy_joules=1.0))
    assert read_benchmark(written) == benchmark


def test_a_file_of_an_older_schema_is_to_be_measured_again(written: Path) -> None:
    change(written, lambda content: content.update(schema_version=1))
    with pytest.raises(ArtifactError, match=r"schema version 1, .*run `smp-pipeline bench` again"):
        read_benchmark(written)


def without_data(content: Any) -> None:
    content.update(task=None, data=None)
    for model in content["models"]:
        model["quality"] = None


def test_a_benchmark_without_labelled_texts_is_whole(written: Path) -> None:
    change(written, without_data)
    found = read_benchmark(written)
    assert (found.task, found.data, found.models[0].quality) == (None, None, None)


def unusable(content: Any) -> None:
    content["cells"][1]["steadiness"].update(verdict="unusable", reasons=["Too loud."])
    for model in content["models"]:
        model["timings"][1]["summary"] = None


def test_unusable_timings_are_kept_without_a_summary(written: Path) -> None:
    change(written, unusable)
    found = read_benchmark(written)
    assert found.unsteady_cells == 1
    assert found.models[1].timings[1].summary is None
    assert len(found.models[1].timings[1].latencies_ms) == 5


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(schema_version=3), "schema version 3.*upgrade smp-pipeline"),
        (lambda c: c.update(kind="smp-model"), "expected a file of kind 'smp-benchmark'"),
        (lambda c: c.pop("cells"), "cells is missing"),
        (lambda c: c.update(cells="two"), "cells must be .*, got 'two'"),
        (lambda c: c.update(models=[]), "it has no models"),
        (lambda c: c["models"][1].update(name="right"), "two models have the same name"),
        (lambda c: c["data"].update(rows=47), "data.rows is 47"),
        (lambda c: c["data"]["references"].pop(), "data.rows is 48"),
        (lambda c: c["data"]["references"].__setitem__(3, "1"), r"references\[3\] must be int"),
        (lambda c: c.update(cells=[]), "it has no cells"),
        (lambda c: c["cells"].append(c["cells"][0]), "it has no cells, or one twice"),
        (lambda c: c["models"][0]["timings"].pop(), "right: its timings are not"),
        (
            lambda c: c["models"][1]["timings"][0]["latencies_ms"].__setitem__(2, 0.0),
            "inverted: a latency is not positive",
        ),
        (
            lambda c: c["models"][1]["timings"][0]["summary"]["ratio"].update(value=0.0),
            "inverted: a ratio is not positive",
        ),
        (
            lambda c: c["models"][1]["timings"][0]["summary"]["ratio"].update(low=None),
            "inverted: a ratio is not positive",
        ),
        (lambda c: c["task"].update(metric="made-up"), "right: it has no made-up"),
        (
            lambda c: c["models"][1]["timings"][0].update(summary=None),
            "inverted: a timing has a summary where there must be none, or none",
        ),
        (
            lambda c: c["cells"][0]["steadiness"].update(verdict="unusable"),
            "right: a timing has a summary where there must be none",
        ),
        (lambda c: c["cells"][0]["steadiness"].update(verdict="fine"), "verdict must be"),
        (lambda c: c["models"][0]["size"].update(zipped_bytes=0), "a size is not positive"),
        (lambda c: c.update(task=None), "a task without data, or data without a task"),
        (lambda c: c["models"][0].update(quality=None), "a quality without a task, or none"),
        (lambda c: c["models"][0]["quality"]["metrics"].pop("accuracy"), "it has no accuracy"),
        (
            lambda c: c["models"][0]["quality"]["predictions"]["logits"].pop(),
            "its logits do not fit",
        ),
        (
            lambda c: c["models"][0]["quality"]["predictions"]["logits"][5].pop(),
            "its logits do not fit",
        ),
        (
            lambda c: c["models"][0]["quality"]["predictions"]["logits"][5].__setitem__(0, None),
            "its logits do not fit",
        ),
        (
            lambda c: c["models"][0]["quality"]["predictions"]["labels"].pop(),
            "its predicted labels",
        ),
        (
            lambda c: c["models"][0]["quality"]["predictions"]["labels"].__setitem__(0, 2),
            "its predicted labels",
        ),
        (
            lambda c: c["models"][1]["quality"].update(
                agreement={"same_label": None, "largest_logit_difference": 0.0, "examples": [48]}
            ),
            "inverted: its agreement names examples that there are not",
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
