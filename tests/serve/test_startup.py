from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from pipeline.errors import MachineError
from serve import open_session
from serve.layout import ModelSource, read_layout
from serve.startup import measure_startups, probe
from tests.serve.conftest import make_foreign


def test_a_larger_model_has_a_larger_peak(make_model: Callable[..., Path], tmp_path: Path) -> None:
    small = make_model(tmp_path / "small")
    large = make_model(tmp_path / "large", positions=8_000_000)  # 64 MB of weights
    advances: list[int] = []
    startups = measure_startups(
        [open_session(small, threads=1), open_session(large, threads=1)],
        processes=3,
        batch_size=1,
        sequence_length=4,
        random=Random(0),
        advance=lambda: advances.append(1),
    )
    assert [startup.processes for startup in startups] == [3, 3]
    assert len(advances) == 2 * 3
    assert all(startup.load_ms > 0 for startup in startups)
    assert startups[1].peak_memory_bytes - startups[0].peak_memory_bytes > 48e6
    assert all(0 < s.baseline_rss_bytes <= s.peak_rss_bytes for s in startups)


def test_a_folder_named_serve_in_the_current_directory_is_not_run(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "model")
    (tmp_path / "serve").mkdir()
    (tmp_path / "serve" / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    assert probe(open_session(Path("model"), threads=1), 1, 4)["load_ms"] > 0


def test_a_failing_process_is_reported_with_its_last_line(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "model", positions=8)
    with pytest.raises(MachineError, match=r"load time and memory failed: .*1 texts of 9 tokens"):
        probe(open_session(directory, threads=1), 1, 9)


def test_a_file_of_others_is_opened_with_what_was_said_of_it(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model")
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (directory / "tokenizer.json").rename(tokenizer / "tokenizer.json")
    source = ModelSource(directory / "model.onnx", tokenizer, 16, ("bad", "good"))
    assert probe(open_session(read_layout(source), threads=1), 1, 4)["load_ms"] > 0
