"""What of several files is drawn together."""

import dataclasses
from pathlib import Path

from pipeline.artifacts.benchmark import Benchmark
from pipeline.report.sources import gather, same_data, signed


def test_one_file_needs_no_label(full_benchmark: Benchmark) -> None:
    (source,) = gather([(Path("a/bench.json"), full_benchmark)])
    assert source.label == source.suffix == signed([source]) == ""
    assert [series.name for series, _ in source.series()] == ["dense", "pruned", "dense (pytorch)"]


def test_models_of_several_files_have_numbers_and_names_of_their_own(
    full_benchmark: Benchmark,
) -> None:
    paths = (Path("a/bench.json"), Path("b/bench.json"), Path("c.json"))
    sources = gather([(path, full_benchmark) for path in paths])
    assert [source.label for source in sources] == ["a/bench.json", "b/bench.json", "c.json"]
    series = [series for source in sources for series, _ in source.series()]
    assert [one.number for one in series] == list(range(9))
    assert len({one.name for one in series}) == 9


def test_metrics_are_compared_over_the_same_examples_only(
    full_benchmark: Benchmark, bare_benchmark: Benchmark
) -> None:
    data = full_benchmark.data
    assert data is not None
    # The same rows in another file are the same data; other labels are not.
    moved = dataclasses.replace(data, source="elsewhere.csv", sha256="0" * 64)
    references = (1 - int(data.references[0]), *data.references[1:])
    other = dataclasses.replace(data, references=references)
    files = {
        "a": full_benchmark,
        "b": dataclasses.replace(full_benchmark, data=moved),
        "c": dataclasses.replace(full_benchmark, data=other),
        "d": bare_benchmark,
    }
    groups = same_data(gather([(Path(name), each) for name, each in files.items()]))
    assert [[source.label for source in group] for group in groups] == [["a", "b"], ["c"]]
    assert signed(groups[0]) == " (a, b)"
