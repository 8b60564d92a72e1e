from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts.benchmark import Cell
from pipeline.config import BenchConfig
from pipeline.data import LabelledText
from serve import Session, open_session
from serve.scenarios import fixed_length_inputs, make_runs, plan_cells

WORDS = ("good", "bad", "fine", "poor", "great", "dull", "lovely", "grim", "bright", "awful")
# Text i is word i, i + 1 times: the length says which text it was.
TEXTS = tuple(" ".join([word] * (index + 1)) for index, word in enumerate(WORDS))
DATA = LabelledText("reviews.csv", TEXTS, None, [0] * 10, "text", None, "label")


@pytest.fixture(scope="module")
def session(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Session:
    return open_session(make_model(tmp_path_factory.mktemp("models") / "model"), threads=1)


def config(**changes: Any) -> BenchConfig:
    return BenchConfig(models=(Path("m"),), validation_file=Path("v.csv"), **changes)


def lengths(run: Any) -> list[int]:
    """Words of each text of a run's batches."""
    return [int(row.sum()) - 2 for batch in run for row in batch["attention_mask"]]


def test_the_grid_is_every_batch_size_with_every_length() -> None:
    cells = plan_cells(config(batch_sizes=(1, 2), sequence_lengths=(4, 6)), threads=3, rows=0)
    assert [(cell.batch_size, cell.texts, cell.sequence_length) for cell in cells] == [
        (1, 1, 4),
        (1, 1, 6),
        (2, 2, 4),
        (2, 2, 6),
    ]
    assert {(cell.scenario, cell.threads) for cell in cells} == {("grid", 3)}


@pytest.mark.parametrize(
    ("rows", "batch_size", "texts"), [(1000, 32, 256), (100, 32, 100), (7, 7, 7)]
)
def test_the_other_scenarios_are_a_cell_each(rows: int, batch_size: int, texts: int) -> None:
    scenarios = ("offline", "multi-stream", "single-stream")
    cells = plan_cells(config(scenarios=scenarios), threads=1, rows=rows)
    assert cells == [
        Cell("offline", batch_size, texts, None, 1),
        Cell("multi-stream", 8, 8, None, 1),
        Cell("single-stream", 1, 1, None, 1),
    ]


def test_a_single_stream_takes_every_text_once_before_any_comes_again(session: Session) -> None:
    cell = Cell("single-stream", 1, 1, None, 1)
    runs = make_runs(cell, session, DATA, repetitions=20, seed=0)
    drawn = [lengths(run) for run in runs]
    assert all(len(texts) == 1 for texts in drawn)
    flat = [texts[0] for texts in drawn]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(1, 11))
    assert flat[:10] != flat[10:]
    assert [run[0]["input_ids"].shape for run in runs] == [(1, words + 2) for words in flat]


def test_the_seed_decides_the_texts_and_they_are_the_same_for_every_model(
    session: Session, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    cell = Cell("single-stream", 1, 1, None, 1)
    cut = open_session(make_model(tmp_path / "short", max_length=6), threads=1)

    def drawn(which: Session, seed: int) -> list[int]:
        runs = make_runs(cell, which, DATA, repetitions=10, seed=seed)
        return [lengths(run)[0] for run in runs]

    assert drawn(session, 1) == drawn(session, 1)
    assert drawn(session, 1) != drawn(session, 2)
    assert drawn(cut, 1) == [min(4, words) for words in drawn(session, 1)]


def test_a_multi_stream_run_is_eight_texts_padded_to_the_longest(session: Session) -> None:
    cell = Cell("multi-stream", 8, 8, None, 1)
    runs = make_runs(cell, session, DATA, repetitions=5, seed=0)
    assert len(runs) == 5
    for run in runs:
        (batch,) = run
        assert batch["input_ids"].shape == (8, max(lengths(run)) + 2)
    # 40 texts are the ten of the data four times.
    drawn = [words for run in runs for words in lengths(run)]
    assert sorted(drawn) == sorted(list(range(1, 11)) * 4)


def test_offline_is_one_pass_in_batches_of_like_length(session: Session) -> None:
    cell = Cell("offline", 4, 10, None, 1)
    (run,) = make_runs(cell, session, DATA, repetitions=5, seed=0)
    assert lengths(run) == list(range(1, 11))
    assert [batch["input_ids"].shape for batch in run] == [(4, 6), (4, 10), (2, 12)]


def test_pairs_stay_together(session: Session) -> None:
    pairs = LabelledText("p.csv", TEXTS, TEXTS[::-1], [0] * 10, "a", "b", "label")
    (run,) = make_runs(Cell("offline", 4, 10, None, 1), session, pairs, repetitions=1, seed=0)
    # [CLS] a [SEP] b [SEP], where the words of a and b are eleven together.
    assert [int(row.sum()) for batch in run for row in batch["attention_mask"]] == [14] * 10


@pytest.mark.parametrize("data", [None, DATA])
def test_a_run_of_the_grid_has_the_cells_shape(session: Session, data: LabelledText | None) -> None:
    runs = make_runs(Cell("grid", 3, 3, 7, 1), session, data, repetitions=9, seed=0)
    ((batch,),) = runs
    assert {name: values.shape for name, values in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), (3, 7)
    )


@pytest.mark.parametrize("shape", [(1, 7), (3, 5), (4, 64)])
def test_inputs_have_the_exact_shape_and_the_ids_of_the_texts(
    session: Session, shape: tuple[int, int]
) -> None:
    texts = ["good film", "the plot was bad"]
    inputs = fixed_length_inputs(session, texts, *shape)
    stream = [token for encoding in session.encode(texts) for token in encoding.ids]
    expected = np.resize(np.array(stream), shape)
    np.testing.assert_array_equal(inputs["input_ids"], expected)
    np.testing.assert_array_equal(inputs["attention_mask"], np.ones(shape))
    np.testing.assert_array_equal(inputs["token_type_ids"], np.zeros(shape))
