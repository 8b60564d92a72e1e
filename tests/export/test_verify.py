from pathlib import Path

import numpy as np
import onnx
import pytest

from export.engine.blob import encode
from export.verify import check_graph, check_weights, judge
from pipeline.artifacts.classifier import Head, TextClassifier, load_encoder
from pipeline.artifacts.run import HeadLayout
from pipeline.errors import VerificationError

QUERY = "encoder.layer.0.attention.self.query.weight"


def model_with(weight: np.ndarray, path: Path, name: str = QUERY, operator: str = "MatMul") -> Path:
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x", name], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", float32, ["n", weight.shape[0]])],
        [onnx.helper.make_tensor_value_info("y", float32, None)],
        [onnx.numpy_helper.from_array(weight, name)],
    )
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


@pytest.fixture
def classifier(tiny_bert: Path) -> TextClassifier:
    layout = HeadLayout("linear", "mean", 32, 2)
    return TextClassifier(load_encoder(str(tiny_bert)), Head(layout), layout)


def test_every_weight_in_the_file_isjudged(classifier: TextClassifier, tmp_path: Path):
    baked = classifier.encoder.get_parameter(QUERY).detach().numpy()
    masks = {QUERY: np.ones(baked.shape, np.bool_)}
    for stored in (baked, baked.T):
        check_weights(model_with(stored, tmp_path / "m"), classifier, masks, "fp32")
    changed = baked.copy()
    changed[3, 4] += 1e-6
    with pytest.raises(VerificationError, match=f"{QUERY} in the graph are not the pruned"):
        check_weights(model_with(changed, tmp_path / "m"), classifier, masks, "fp32")


def test_a_weight_that_the_mask_removes_is_found(classifier: TextClassifier, tmp_path: Path):
    baked = classifier.encoder.get_parameter(QUERY).detach().numpy()
    mask = np.ones(baked.shape, np.bool_)
    mask[0, 0] = False
    with pytest.raises(VerificationError, match="its mask removes"):
        check_weights(model_with(baked, tmp_path / "m"), classifier, {QUERY: mask}, "fp32")


def test_a_weight_that_is_not_there_is_found(classifier: TextClassifier, tmp_path: Path):
    path = model_with(np.ones((32, 32), np.float32), tmp_path / "m", name="other")
    masks = {QUERY: np.ones((32, 32), np.bool_)}
    with pytest.raises(VerificationError, match=f"no weight {QUERY}"):
        check_weights(path, classifier, masks, "fp32")


def test_an_invalid_graph_is_refused(tmp_path: Path):
    path = model_with(np.ones((2, 2), np.float32), tmp_path / "m", operator="NoSuchOperator")
    with pytest.raises(VerificationError, match="ONNX checker"):
        check_graph(path)


def test_tolerance_is_a_share_of_the_largest_logit():
    expected = np.array([[0.0, 50.0], [1.0, 0.0], [0.0, 9.0]], np.float32)
    found = expected + np.array([[0.4, 0.0], [0.0, 0.0], [0.0, 0.0]], np.float32)
    result = judge(expected, found, 2, tolerance=1e-2)
    assert result.largest_logit_difference == pytest.approx(0.4)
    assert result.tolerance == pytest.approx(0.5)
    with pytest.raises(VerificationError):
        judge(expected / 50, found / 50 + 0.02, 2, tolerance=1e-2)


def test_label_agreement_is_counted_over_the_texts():
    expected = np.array([[0.0, 0.1], [1.0, 0.0]], np.float32)
    found = np.array([[0.1, 0.0], [1.0, 0.0]], np.float32)
    assert judge(expected, found, 2, tolerance=1.0).label_agreement == 0.5


def test_logits_that_are_no_numbers_are_refused():
    expected = np.zeros((1, 2), np.float32)
    with pytest.raises(VerificationError, match="nan"):
        judge(expected, np.full((1, 2), np.nan, np.float32), 1, tolerance=1.0)


def test_labels_that_change_too_often_are_refused():
    expected = np.tile(np.array([[0.0, 0.1]], np.float32), (20, 1))
    found = expected.copy()
    found[:2] = found[:2, ::-1]
    assert judge(expected, found, 20, tolerance=1.0).label_agreement == 0.9
    with pytest.raises(VerificationError, match=r"only 90\.0% of 20 .*95% are needed"):
        judge(expected, found, 20, tolerance=1.0, least_agreement=0.95)
    # What random token ids are labelled says nothing.
    made_up = judge(expected, found, 0, tolerance=1.0, least_agreement=0.95, reference="onnx")
    assert (made_up.label_agreement, made_up.reference) == (0.9, "onnx")


@pytest.mark.parametrize("values", ["fp32", "fp16", "int8"])
def test_weights_of_the_engine_are_decoded_and_compared(
    values, classifier: TextClassifier, tmp_path: Path
):
    baked = classifier.encoder.get_parameter(QUERY).detach().numpy()
    masks = {QUERY: np.ones(baked.shape, np.bool_)}
    path = model_with(np.ones((32, 32), np.float32), tmp_path / "m")
    model = onnx.load(path)

    def store(matrix: np.ndarray) -> None:
        blob = onnx.numpy_helper.from_array(encode(matrix, values), QUERY)
        model.graph.initializer[0].CopyFrom(blob)
        onnx.save(model, path)

    store(baked)
    check_weights(path, classifier, masks, values)
    changed = baked.copy()
    changed[3, 4] += 0.1
    store(changed)
    with pytest.raises(VerificationError, match="are not the pruned"):
        check_weights(path, classifier, masks, values)
