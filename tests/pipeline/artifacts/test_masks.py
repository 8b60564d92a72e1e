"""One bit a weight comes back as it was, or the file is refused by name."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from pipeline.artifacts.masks import read_masks, write_masks
from pipeline.errors import ArtifactError

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
densities = st.sampled_from([0.0, 0.03, 0.5, 1.0])


@st.composite
def named_masks(draw):
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(st.text(max_size=8), max_size=4, unique=True))
    return {name: generator.random(draw(shapes)) < draw(densities) for name in names}


@given(masks=named_masks())
@settings(max_examples=60, deadline=None)
def test_masks_come_back_as_they_were(tmp_path_factory, masks):
    path = tmp_path_factory.getbasetemp() / "round-trip.safetensors"
    masks = {f"m{name}": mask for name, mask in masks.items()}  # "__metadata__" is the format's own
    write_masks(path, masks)
    found = read_masks(path)
    assert found.keys() == masks.keys()
    for name, mask in masks.items():
        assert found[name].dtype == np.bool_
        np.testing.assert_array_equal(found[name], mask)


def test_a_mask_takes_one_bit_a_weight_first_weight_in_the_highest_bit(tmp_path):
    mask = np.zeros((3, 3), dtype=bool)
    mask[0, 0] = mask[0, 2] = mask[2, 2] = True
    write_masks(tmp_path / "m", {"w": mask})
    assert load_file(tmp_path / "m")["w"].tolist() == [0b10100000, 0b10000000]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("masks") / "masks.safetensors"
    generator = np.random.default_rng(0)
    shapes = {"a": (5, 7), "b": (8, 3)}
    write_masks(path, {name: generator.random(shape) < 0.4 for name, shape in shapes.items()})
    return path.read_bytes()


@pytest.fixture
def refused(tmp_path):
    def check(content, match="corrupt"):
        path = tmp_path / "masks.safetensors"
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=match) as error:
            read_masks(path)
        assert str(path) in str(error.value)

    return check


def test_a_file_cut_anywhere_is_refused(written, refused):
    for length in range(len(written)):
        refused(written[:length])


def test_a_file_with_any_byte_changed_is_refused_or_reads_the_same_masks(written, tmp_path):
    path = tmp_path / "masks.safetensors"
    path.write_bytes(written)
    original = read_masks(path)
    (header_size,) = struct.unpack("<Q", written[:8])
    generator = np.random.default_rng(0)
    for position in range(len(written)):
        changed = bytearray(written)
        changed[position] ^= int(generator.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:
            found = read_masks(path)
        except ArtifactError as error:
            assert str(path) in str(error)
            continue
        # Only the header has room for changes without meaning: names, white space.
        assert position < 8 + header_size
        for name, mask in zip(sorted(found), sorted(original), strict=True):
            assert np.count_nonzero(found[name]) == np.count_nonzero(original[mask])


def rewritten(written, tmp_path, *, tensors=None, drop=(), **metadata):
    """The file with other tensors or metadata, sound as a safetensors file."""
    source = tmp_path / "source"
    source.write_bytes(written)
    (size,) = struct.unpack("<Q", written[:8])
    old = json.loads(written[8 : 8 + size])["__metadata__"]
    content = {**load_file(source), **(tensors or {})}
    new = {key: value for key, value in {**old, **metadata}.items() if key not in drop}
    save_file(content, str(source), metadata=new)
    return source.read_bytes()


def layout(**changes):
    return json.dumps(
        {"a": {"shape": [5, 7], "kept": 1}, "b": {"shape": [8, 3], "kept": 1}} | changes
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"drop": ("format",)}, "expected mask format 'smp-masks-1', got None"),
        ({"format": "smp-masks-2"}, "got 'smp-masks-2'; upgrade smp-pipeline"),
        ({"drop": ("layout",)}, "layout cannot be read"),
        ({"layout": "{"}, "layout cannot be read"),
        ({"layout": "[1]"}, "layout cannot be read"),
        ({"layout": layout(a=3)}, "layout cannot be read"),
        ({"layout": layout(a={"shape": [5, 7]})}, "layout cannot be read"),
        ({"layout": layout(a={"shape": [5, 1e999], "kept": 1})}, "layout cannot be read"),
        ({"layout": "[" * 100_000}, "layout cannot be read"),
        ({"layout": layout(c={"shape": [1, 1], "kept": 1})}, "does not name the tensors"),
        ({"layout": layout(a={"shape": [5, 0], "kept": 0})}, r"mask a has the shape \[5, 0\]"),
        ({"layout": layout(a={"shape": [-5, -7], "kept": 0})}, "mask a has the shape"),
        ({"layout": layout(a={"shape": [35], "kept": 0})}, "mask a has the shape"),
        ({"layout": layout(a={"shape": [1] * 100, "kept": 0})}, "mask a has the shape"),
        ({"layout": layout(a={"shape": [2**40, 2**40], "kept": 0})}, "5 bytes for"),
        ({"layout": layout(a={"shape": [5, 9], "kept": 0})}, "5 bytes for 45 weights"),
        ({"layout": layout()}, "mask a does not keep 1 weights"),
        ({"drop": ("sha256",)}, "checksum"),
        ({"sha256": "0" * 64}, "checksum"),
        ({"tensors": {"a": np.zeros(5, dtype=np.uint8)}}, "checksum"),
        ({"tensors": {"z": np.zeros(5, dtype=np.uint8)}}, "does not name the tensors"),
    ],
)
def test_wrong_metadata_and_tensors_are_refused(written, tmp_path, refused, change, match):
    refused(rewritten(written, tmp_path, **change), match)


@pytest.mark.parametrize(
    ("dtype", "size"), [("BF16", 1), ("F8_E4M3", 2), ("F4", 4), ("F16", 1), ("BOOL", 2)]
)
def test_tensors_of_other_types_are_refused(refused, dtype, size):
    tensor = {"dtype": dtype, "shape": [size], "data_offsets": [0, 2]}
    header = json.dumps({"a": tensor, "__metadata__": {"format": "smp-masks-1"}}).encode()
    refused(struct.pack("<Q", len(header)) + header + bytes(2), "masks are packed in bytes")


def test_a_sound_rewrite_is_read(written, tmp_path):
    path = tmp_path / "masks.safetensors"
    path.write_bytes(rewritten(written, tmp_path))
    assert read_masks(path)["a"].shape == (5, 7)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"masks.safetensors is missing; .* train again"):
        read_masks(tmp_path / "masks.safetensors")
