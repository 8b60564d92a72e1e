"""The ONNX standard's sparse initializers: values that are not zero, with int64 positions.

ONNX Runtime makes them dense when it reads a file. onnx-ir does not know them, so this works on
the file's own form.
"""

import math
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from pipeline.errors import ArtifactError

__all__ = ["declare_as_inputs", "to_dense_initializers", "to_sparse_initializers"]

# Elements of a tensor that is made dense: no ONNX file could hold more of them.
_LARGEST = 2**31


def to_sparse_initializers(model: onnx.ModelProto, stored: Mapping[str, str]) -> dict[str, str]:
    """Store initializers as sparse ones, in place, where that takes fewer bytes.

    Args:
        model: the model.
        stored: weight -> the initializer with its values, of any type.

    Returns:
        Weight -> ``sparse``, or ``dense`` where that is not larger.
    """
    weights = {initializer: weight for weight, initializer in stored.items()}
    encodings = dict.fromkeys(stored, "dense")
    moved, sparse = [], []
    for place, tensor in enumerate(model.graph.initializer):
        if tensor.name in weights:
            array = numpy_helper.to_array(tensor)
            positions = np.flatnonzero(array).astype(np.int64)
            values = array.reshape(-1)[positions]
            if positions.nbytes + values.nbytes < array.nbytes:
                moved.append(place)
                sparse.append(
                    onnx.helper.make_sparse_tensor(
                        numpy_helper.from_array(values, tensor.name),
                        numpy_helper.from_array(positions, f"{tensor.name}.indices"),
                        list(array.shape),
                    )
                )
                encodings[weights[tensor.name]] = "sparse"
    for place in reversed(moved):
        del model.graph.initializer[place]
    model.graph.sparse_initializer.extend(sparse)
    return encodings


def to_dense_initializers(model: onnx.ModelProto) -> None:
    """Replace all sparse initializers by dense ones, in place.

    Raises:
        ArtifactError: one is too large, or positions are not in order, lie outside, or do not fit
            the values.
    """
    for tensor in model.graph.sparse_initializer:
        array = _dense(tensor)
        model.graph.initializer.append(numpy_helper.from_array(array, tensor.values.name))
    del model.graph.sparse_initializer[:]


def declare_as_inputs(model: onnx.ModelProto) -> None:
    """Replace all sparse initializers by graph inputs of their dense type, in place."""
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(
            tensor.values.name, tensor.values.data_type, list(tensor.dims)
        )
        for tensor in model.graph.sparse_initializer
    )
    del model.graph.sparse_initializer[:]


def _dense(tensor: onnx.SparseTensorProto) -> NDArray[np.generic]:
    name = tensor.values.name
    if any(extent < 0 for extent in tensor.dims) or any(
        part.data_location == onnx.TensorProto.EXTERNAL for part in (tensor.values, tensor.indices)
    ):
        raise ArtifactError(
            f"the sparse initializer {name} is corrupt: its shape is {list(tensor.dims)}, its data "
            "must be in the file itself"
        )
    if math.prod(tensor.dims) > _LARGEST:
        raise ArtifactError(
            f"the sparse initializer {name} is corrupt: {list(tensor.dims)} is more than one ONNX "
            "file holds"
        )
    try:
        values = numpy_helper.to_array(tensor.values)
        positions = numpy_helper.to_array(tensor.indices)
        flat = np.zeros(math.prod(tensor.dims), values.dtype)
        if positions.ndim == 2:  # one coordinate an axis, which the standard allows as well
            positions = np.ravel_multi_index(tuple(positions.T), tuple(tensor.dims))
    except (ValueError, TypeError, MemoryError, OverflowError) as error:
        raise ArtifactError(f"the sparse initializer {name} is corrupt ({error})") from error
    if positions.dtype != np.int64 or positions.shape != values.shape or positions.ndim != 1:
        raise ArtifactError(
            f"the sparse initializer {name} is corrupt: expected an int64 position for each of "
            f"{values.size} values, found {positions.dtype} {list(positions.shape)}"
        )
    if positions.size and (
        positions[0] < 0 or positions[-1] >= flat.size or np.any(np.diff(positions) <= 0)
    ):
        raise ArtifactError(
            f"the sparse initializer {name} is corrupt: its positions are not in order or lie "
            f"outside of {flat.size} weights"
        )
    flat[positions] = values
    return flat.reshape(tuple(tensor.dims))
