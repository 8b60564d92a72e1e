"""The layout of the published mask files: order, sizes, and files that are something else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.published_masks import (
    published_order,
    read_published_masks,
    write_published_masks,
)
from pipeline.errors import ArtifactError

# In the order of the reference implementation's names within a layer.
WITHIN = (
    "attention.output.dense",
    "attention.self.key",
    "attention.self.query",
    "attention.self.value",
    "intermediate.dense",
    "output.dense",
)


def shapes_of(layers, hidden=8, wide=24):
    shape = {"intermediate.dense": (wide, hidden), "output.dense": (hidden, wide)}
    return {
        f"encoder.layer.{layer}.{matrix}.weight": shape.get(matrix, (hidden, hidden))
        for layer in range(layers)
        for matrix in reversed(WITHIN)
    }


def masks_of(shapes, seed=0):
    generator = np.random.default_rng(seed)
    return {name: generator.random(shape) < 0.3 for name, shape in shapes.items()}


def test_layers_are_in_the_order_of_strings_and_matrices_too():
    order = published_order(shapes_of(12))
    layers = [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert order == [f"encoder.layer.{i}.{matrix}.weight" for i in layers for matrix in WITHIN]


def test_bert_base_has_the_size_of_the_published_files(tmp_path):
    shapes = shapes_of(12, hidden=768, wide=3072)
    assert sum(np.prod(shape) for shape in shapes.values()) / 8 == 10_616_832
    np.save(tmp_path / "short.npy", np.zeros(10_616_831, np.uint8))
    message = r"expected 10,616,832 bytes of masks for the 84,934,656 pruned .*got 10,616,831"
    with pytest.raises(ArtifactError, match=message):
        read_published_masks(tmp_path / "short.npy", shapes)


def test_the_bits_are_those_of_packbits_over_the_concatenation(tmp_path):
    masks = masks_of(shapes_of(12))
    written = write_published_masks(tmp_path / "masks.npy", masks)
    layers = sorted(map(str, range(12)))
    ordered = [masks[f"encoder.layer.{i}.{matrix}.weight"] for i in layers for matrix in WITHIN]
    expected = np.packbits(np.concatenate([mask.flatten() for mask in ordered]))
    found = np.load(tmp_path / "masks.npy", allow_pickle=False)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    assert written == expected.size


@given(st.integers(1, 13), st.integers(1, 5), st.integers(1, 7), st.integers(0, 9))
def test_what_was_written_is_read_for_any_shapes(tmp_path_factory, layers, hidden, wide, seed):
    path = tmp_path_factory.mktemp("masks") / "masks.npy"
    shapes = shapes_of(layers, hidden, wide)
    masks = masks_of(shapes, seed)
    write_published_masks(path, masks)
    found = read_published_masks(path, shapes)
    assert set(found) == set(masks)
    for name, mask in masks.items():
        assert found[name].dtype == np.bool_
        np.testing.assert_array_equal(found[name], mask)


@pytest.mark.parametrize(
    "array",
    [np.zeros(864, np.int8), np.zeros((1, 864), np.uint8), np.array([{"a": 1}], dtype=object)],
)
def test_arrays_of_another_kind_are_refused(tmp_path, array):
    np.save(tmp_path / "masks.npy", array, allow_pickle=True)
    with pytest.raises(ArtifactError, match=r"masks\.npy"):
        read_published_masks(tmp_path / "masks.npy", shapes_of(1))


def test_a_pickle_an_archive_and_nothing_are_refused(tmp_path):
    (tmp_path / "masks.npy").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ArtifactError, match=r"is no \.npy file of masks"):
        read_published_masks(tmp_path / "masks.npy", shapes_of(1))
    np.savez(tmp_path / "masks.npz", np.zeros(3, np.uint8))
    with pytest.raises(ArtifactError, match="but an archive"):
        read_published_masks(tmp_path / "masks.npz", shapes_of(1))
    with pytest.raises(ArtifactError, match="no such file"):
        read_published_masks(tmp_path / "nope.npy", shapes_of(1))


@given(st.integers(0, 200), st.integers(0, 255), st.integers(0, 400))
def test_damaged_files_give_one_clear_line(tmp_path_factory, place, byte, cut):
    path = tmp_path_factory.mktemp("masks") / "masks.npy"
    shapes = shapes_of(1, 4, 4)
    write_published_masks(path, masks_of(shapes))
    content = bytearray(path.read_bytes())
    if place < len(content):
        content[place] = byte
    path.write_bytes(content[: len(content) - cut] if cut < 100 else content)
    try:
        found = read_published_masks(path, shapes)
    except ArtifactError as error:
        assert "\n" not in str(error)
    else:
        assert {name: mask.shape for name, mask in found.items()} == shapes


def test_a_header_that_asks_for_a_lot_takes_no_memory(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (117 - len(header)) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 8
    (tmp_path / "masks.npy").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"is no \.npy file of masks"):
        read_published_masks(tmp_path / "masks.npy", shapes_of(1))


def test_a_matrix_of_another_architecture_has_no_place(tmp_path):
    with pytest.raises(ValueError, match="is no pruned matrix of a BERT"):
        write_published_masks(
            tmp_path / "masks.npy", {"transformer.layer.0.ffn.lin1.weight": np.ones((2, 2), bool)}
        )
    assert not list(tmp_path.iterdir())
