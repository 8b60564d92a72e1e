from pathlib import Path

import numpy as np

from pipeline.native import report
from serve import open_session
from tests.project.smoke_model import write_smoke_model


def test_the_smoke_test_s_model_counts_words_through_the_native_library(
    native_library: Path, tmp_path: Path
) -> None:
    write_smoke_model(tmp_path / "words")
    session = open_session(tmp_path / "words", threads=1)
    np.testing.assert_array_equal(session.logits(["good film", "bad"]), [[-1, 1], [1, -1]])
    assert "SmpLinear" in {node["op"] for node in report()["nodes"]}
