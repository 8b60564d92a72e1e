from pathlib import Path

import onnx
import pytest

from export.engine.probe import make_batches
from export.verify_onnx import compare_with_onnx
from pipeline.errors import VerificationError

pytestmark = pytest.mark.usefixtures("native_library")


def write_token_scores(path: Path, *, masked: float, kept: float = 1.0) -> Path:
    """A graph that gives each token one number, [batch, sequence]."""
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 20]>
        scores (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask)
            => (float[batch, sequence] start_logits)
        <float masked = {{{masked}}}, float kept = {{{kept}}}>
        {{
            is_kept = Cast<to = 9>(attention_mask)
            ids = Cast<to = 1>(input_ids)
            scaled = Mul(ids, kept)
            start_logits = Where(is_kept, scaled, masked)
        }}
        """
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def test_outputs_that_are_no_tensors_are_passed_over(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        scores (int64[batch, sequence] input_ids)
            => (seq(float[batch, sequence]) list, float[batch, sequence] ids)
        {
            ids = Cast<to = 1>(input_ids)
            list = SequenceConstruct(ids)
        }
        """
    )
    onnx.save(model, tmp_path / "model.onnx")
    path = tmp_path / "model.onnx"
    found = compare_with_onnx(path, path, make_batches(model), texts=0, tolerance=1e-6)
    assert found.largest_logit_difference == 0.0


def test_scores_of_tokens_are_compared_where_the_mask_keeps_them(tmp_path: Path) -> None:
    original = write_token_scores(tmp_path / "original.onnx", masked=3.0)
    other = write_token_scores(tmp_path / "other.onnx", masked=-7.0)
    batches = make_batches(onnx.load(original))
    assert any(not batch.kept.all() for batch in batches)
    result = compare_with_onnx(other, original, batches, texts=0, tolerance=1e-6)
    assert result.largest_logit_difference == 0.0
    wrong = write_token_scores(tmp_path / "wrong.onnx", masked=3.0, kept=1.5)
    with pytest.raises(VerificationError, match="differ"):
        compare_with_onnx(wrong, original, batches, texts=0, tolerance=1e-6)
