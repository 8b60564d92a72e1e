import numpy as np
import pytest
from numpy.typing import NDArray

from export.judge import judge, worst
from pipeline.artifacts.exported import Verification
from pipeline.errors import VerificationError

Floats = NDArray[np.float32]


def floats(values: object) -> Floats:
    return np.array(values, np.float32)


def test_tolerance_is_a_share_of_the_largest_logit():
    expected = floats([[0.0, 50.0], [1.0, 0.0], [0.0, 9.0]])
    found = expected + floats([[0.4, 0.0], [0.0, 0.0], [0.0, 0.0]])
    result = judge([(expected, found)], None, 2, tolerance=1e-2)
    assert result.largest_logit_difference == pytest.approx(0.4)
    assert result.tolerance == pytest.approx(0.5)
    with pytest.raises(VerificationError):
        judge([(expected / 50, found / 50 + 0.02)], None, 2, tolerance=1e-2)


def test_label_agreement_is_counted_over_the_texts_of_all_batches():
    equal = (floats([[1.0, 0.0]]), floats([[1.0, 0.0]]))
    other = (floats([[0.0, 0.1], [0.0, 0.1]]), floats([[0.1, 0.0], [0.1, 0.0]]))
    assert judge([equal, other], None, 2, tolerance=1.0).label_agreement == 0.5
    assert judge([equal, other], None, 0, tolerance=1.0).label_agreement == 1 / 3
    assert judge([equal, other], None, 0, tolerance=1.0, labels=False).label_agreement == 1.0


def test_logits_that_are_no_numbers_are_refused():
    expected = np.zeros((1, 2), np.float32)
    with pytest.raises(VerificationError, match="nan"):
        judge([(expected, np.full((1, 2), np.nan, np.float32))], None, 1, tolerance=1.0)


def test_labels_that_change_too_often_are_refused():
    expected = np.tile(floats([[0.0, 0.1]]), (20, 1))
    found = expected.copy()
    found[:2] = found[:2, ::-1]
    batches = [(expected, found)]
    assert judge(batches, None, 20, tolerance=1.0).label_agreement == 0.9
    with pytest.raises(VerificationError, match=r"only 90\.0% of 20 .*95% are needed"):
        judge(batches, None, 20, tolerance=1.0, least_agreement=0.95)
    # What random token ids are labelled says nothing.
    made_up = judge(batches, None, 0, tolerance=1.0, least_agreement=0.95, reference="onnx")
    assert (made_up.label_agreement, made_up.reference) == (0.9, "onnx")


def test_tokens_that_the_mask_hides_do_not_count():
    kept = np.array([[True, True, False]])
    expected = floats([[[1, 0], [0, 1], [0, 1]]])
    found = floats([[[1, 0], [1, 0], [9, 0]]])
    result = judge([(expected, found)], [kept], 1, tolerance=1.0)
    assert result.largest_logit_difference == 1.0
    assert result.label_agreement == 0.5
    nothing = floats([[[1, 0], [0, 1], [np.nan, np.nan]]])
    assert judge([(expected, nothing)], [kept], 1, tolerance=0.1).label_agreement == 1.0


def test_of_positions_the_likeliest_is_compared():
    kept = np.array([[True, True, False], [True, True, True]])
    expected = floats([[1, 2, 9], [1, 2, 3]])
    found = floats([[1, 1.5, 0], [3, 2, 2.5]])
    assert judge([(expected, found)], [kept], 2, tolerance=1.0).label_agreement == 0.5
    assert judge([(expected, found)], [kept], 1, tolerance=1.0).label_agreement == 1.0
    with pytest.raises(VerificationError, match=r"only 50\.0% of 2 validation texts' answers"):
        judge([(expected, found)], [kept], 2, tolerance=1.0, least_agreement=0.9)


def test_of_several_outputs_the_worst_figures_count():
    results = [Verification(3, 0.5, 1.0, 0.9), Verification(3, 0.2, 0.25, 1.0)]
    assert worst(results) == Verification(3, 0.2, 0.25, 0.9)
