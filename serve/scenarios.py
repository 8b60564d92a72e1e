"""What a timed run is: the cells of a benchmark, and the inputs of a model's runs in each."""

from collections.abc import Iterator, Sequence
from itertools import islice, product
from random import Random

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Cell
from pipeline.config import BenchConfig
from pipeline.data import LabelledText
from serve.child import made_up_inputs
from serve.session import Session, TokenRow
from serve.subjects import Inputs

__all__ = ["MULTI_STREAM_TEXTS", "Run", "fixed_length_inputs", "make_runs", "plan_cells"]

# Samples of a query in MLPerf Inference's MultiStream.
MULTI_STREAM_TEXTS = 8

Run = Sequence[Inputs]  # batches, run one after the other


def plan_cells(config: BenchConfig, *, threads: int, rows: int) -> list[Cell]:
    """The cells of one thread count, in the order of the scenarios.

    Args:
        config: the configuration.
        threads: of each session.
        rows: labelled texts; 0 without data, where every scenario is ``grid``.
    """
    cells = []
    for scenario in config.scenarios:
        match scenario:
            case "grid":
                shapes = product(config.batch_sizes, config.sequence_lengths)
                cells += [Cell("grid", batch, batch, length, threads) for batch, length in shapes]
            case "single-stream":
                cells.append(Cell(scenario, 1, 1, None, threads))
            case "multi-stream":
                cells.append(Cell(scenario, MULTI_STREAM_TEXTS, MULTI_STREAM_TEXTS, None, threads))
            case "offline":
                texts = min(config.offline_texts, rows)
                batch_size = min(config.offline_batch_size, texts)
                cells.append(Cell(scenario, batch_size, texts, None, threads))
    return cells


def make_runs(
    cell: Cell, session: Session, data: LabelledText | None, *, repetitions: int, seed: int
) -> list[Run]:
    """The inputs of a model's runs in one cell.

    Run i has the same texts for every model, however each of them cuts a text into tokens.

    Args:
        cell: what a run is.
        session: tokenises and collates.
        data: the texts; without them the grid's inputs are made-up token ids.
        repetitions: different runs to make, where runs differ.
        seed: of the order in which the texts are drawn.

    Returns:
        One run an entry: ``repetitions`` of them in the streams, where each has texts of its own;
        a single one in the other scenarios, where all runs are the same.
    """
    if cell.sequence_length is not None:
        shape = (cell.batch_size, cell.sequence_length)
        if data is None:
            return [[made_up_inputs(session, *shape)]]
        return [[fixed_length_inputs(session, data.texts, *shape)]]
    assert data is not None
    runs = 1 if cell.scenario == "offline" else repetitions
    drawn = list(islice(_draw(len(data), seed), runs * cell.texts))
    pairs = None if data.pairs is None else [data.pairs[index] for index in drawn]
    encodings = session.encode([data.texts[index] for index in drawn], pairs)
    if cell.scenario == "offline":  # texts of like length together: little padding
        encodings.sort(key=lambda encoding: len(encoding.ids))
    batches = [
        session.collate(encodings[start : start + cell.batch_size])
        for start in range(0, len(encodings), cell.batch_size)
    ]
    return [batches] if cell.scenario == "offline" else [[batch] for batch in batches]


def fixed_length_inputs(
    session: Session, texts: Sequence[str], batch_size: int, sequence_length: int
) -> dict[str, NDArray[np.int64]]:
    """Inputs of exactly the given shape, without padding, from real texts.

    The token ids of the texts are strung together, special tokens included, repeated as often as
    is needed, and cut into rows.

    Returns:
        input name -> int64 [batch_size, sequence_length].
    """
    needed = batch_size * sequence_length
    stream: list[int] = []
    for encoding in session.encode(texts[:needed]):
        stream += encoding.ids
        if len(stream) >= needed:
            break
    ids = np.resize(np.array(stream, dtype=np.int64), (batch_size, sequence_length))
    ones, zeros = [1] * sequence_length, [0] * sequence_length
    return session.collate([TokenRow(row, ones, zeros) for row in ids.tolist()])


def _draw(rows: int, seed: int) -> Iterator[int]:
    """Positions in random order, without an end: each once before any comes again."""
    random = Random(seed)
    while True:
        yield from random.sample(range(rows), rows)
