"""Masks come back from their code and the frozen weights, or the code is refused."""

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts.mask_codec import decode_masks, encode_masks, entropy_bound_bits
from pipeline.errors import ArtifactError

SOURCE = Path("delta.safetensors")
DENSITIES = [0.0, 0.001, 0.03, 0.1, 0.5, 0.97, 1.0]


def random_weights(generator, shape, kind):
    weights = generator.standard_normal(shape, dtype=np.float32)
    if kind == "ties":
        weights = np.round(weights)  # zeros of both signs among them
    elif kind == "zeros":
        weights = np.zeros(shape, np.float32)
    elif kind == "extreme":
        weights = np.ldexp(weights, generator.integers(-149, 127, shape)).astype(np.float32)
    return weights


def random_mask(generator, weights, density, by_magnitude):
    if not by_magnitude:
        return generator.random(weights.shape) < density
    noisy = np.abs(weights) * np.exp(0.1 * generator.standard_normal(weights.shape))
    return noisy > np.quantile(noisy, 1 - density)


@st.composite
def pruned_matrices(draw):
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks, weights = {}, {}
    for name in draw(st.lists(st.text(max_size=8), max_size=4, unique=True)):
        shape = draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
        kind = draw(st.sampled_from(["normal", "ties", "zeros", "extreme"]))
        weights[name] = random_weights(generator, shape, kind)
        density, by_magnitude = draw(st.sampled_from(DENSITIES)), draw(st.booleans())
        masks[name] = random_mask(generator, weights[name], density, by_magnitude)
    return masks, weights


def assert_equal(found, masks):
    assert found.keys() == masks.keys()
    for name, mask in masks.items():
        assert found[name].dtype == np.bool_
        np.testing.assert_array_equal(found[name], mask)


@given(pruned=pruned_matrices())
@settings(max_examples=150, deadline=None)
def test_masks_come_back_as_they_were(pruned):
    masks, weights = pruned
    assert_equal(decode_masks(encode_masks(masks, weights), weights, source=SOURCE), masks)


@pytest.mark.parametrize("by_magnitude", [False, True])
@pytest.mark.parametrize("density", DENSITIES)
def test_matrices_of_several_blocks_come_back(density, by_magnitude):
    generator = np.random.default_rng(0)
    weights = {
        name: random_weights(generator, shape, "normal")
        for name, shape in {"a": (300, 500), "b": (1, 70_000), "c": (7, 3)}.items()
    }
    masks = {n: random_mask(generator, w, density, by_magnitude) for n, w in weights.items()}
    code = encode_masks(masks, weights)
    assert_equal(decode_masks(code, weights, source=SOURCE), masks)
    order = sorted(masks, reverse=True)
    assert encode_masks({name: masks[name] for name in order}, weights) == code


def test_weights_that_are_not_contiguous_are_read_by_rows():
    generator = np.random.default_rng(0)
    weight = random_weights(generator, (400, 300), "normal")
    mask = random_mask(generator, weight, 0.3, by_magnitude=True)
    code = encode_masks({"w": mask}, {"w": weight})
    transposed = {"w": np.asfortranarray(weight)}
    assert encode_masks({"w": np.asfortranarray(mask)}, transposed) == code
    assert_equal(decode_masks(code, transposed, source=SOURCE), {"w": mask})


@pytest.mark.parametrize("density", [0.0005, 0.003, 0.03, 0.1, 0.3, 0.382, 0.5, 0.8, 0.97, 0.999])
def test_random_masks_take_hardly_more_than_their_entropy(density):
    generator = np.random.default_rng(1)
    weights = {name: random_weights(generator, (1000, 1000), "normal") for name in "ab"}
    masks = {name: generator.random((1000, 1000)) < density for name in weights}
    kept = [int(mask.sum()) for mask in masks.values()]
    bound = entropy_bound_bits([10**6] * 2, kept)
    assert 8 * len(encode_masks(masks, weights)) < 1.03 * bound + 8 * 100


@pytest.mark.parametrize("density", [0.03, 0.1, 0.5])
def test_masks_that_follow_the_magnitude_take_much_less_than_their_entropy(density):
    generator = np.random.default_rng(2)
    weights = {name: random_weights(generator, (400, 400), "normal") for name in "ab"}
    masks = {n: random_mask(generator, w, density, by_magnitude=True) for n, w in weights.items()}
    bound = entropy_bound_bits([160_000] * 2, [int(mask.sum()) for mask in masks.values()])
    assert 8 * len(encode_masks(masks, weights)) < 0.5 * bound


def test_the_entropy_bound_of_known_densities():
    assert entropy_bound_bits([8, 100, 100], [4, 0, 100]) == 8
    assert entropy_bound_bits([4], [1]) == pytest.approx(4 * (0.25 * 2 + 0.75 * np.log2(4 / 3)))
    assert entropy_bound_bits([], []) == 0


def deflate(content):
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


def code_of(kind, stream, *, size=600, table=bytes([1, 0])):
    """A code of one class, written by hand from the format's description."""
    table = deflate(table)
    header = struct.pack("<II", 1, len(table)) + struct.pack("<BQQ", kind, size, len(stream))
    return header + table + stream


WEIGHTS = {"w": np.zeros((20, 30), np.float32)}


@pytest.mark.parametrize(
    ("kind", "stream", "ones"),
    [
        (0, deflate(bytes([0x81]) + bytes(74)), {0, 7}),
        (1, deflate(bytes([3, 0, 255, 10])), {3, 4, 270}),
        (2, deflate(bytes([3, 0, 255, 10])), set(range(600)) - {3, 4, 270}),
        (3, deflate(bytes([0, 1])) + bytes([5, 2]), {5, 264}),
        (4, deflate(bytes([0, 1])) + bytes([5, 2]), set(range(600)) - {5, 264}),
        (1, deflate(b""), set()),
        (2, deflate(b""), set(range(600))),
    ],
)
def test_a_code_written_by_hand(kind, stream, ones):
    mask = decode_masks(code_of(kind, stream), WEIGHTS, source=SOURCE)["w"]
    assert set(np.flatnonzero(mask).tolist()) == ones


def test_intervals_written_by_hand():
    weights = {"w": np.array([[1.0, -4.0, 0.5, 2.0, -1.5, 8.0]], np.float32)}
    two, four = (np.float32(value).view(np.uint32) >> 16 for value in (2.0, 4.0))
    table = deflate(bytes([3]) + struct.pack("<HH", two, four) + bytes([0, 1, 0]))
    # Below 2: 1.0, 0.5, -1.5; from 2: 2.0; from 4: -4.0, 8.0.
    streams = [deflate(bytes([0b01010000])), deflate(bytes([0b10000000]))]
    headers = [
        struct.pack("<BQQ", 0, size, len(s)) for size, s in zip((5, 1), streams, strict=True)
    ]
    code = struct.pack("<II", 2, len(table)) + b"".join([*headers, table, *streams])
    mask = decode_masks(code, weights, source=SOURCE)["w"]
    assert mask.tolist() == [[False, True, True, True, False, False]]


@pytest.mark.parametrize(
    "code",
    [
        b"",
        code_of(5, deflate(bytes(75))),
        code_of(0, deflate(bytes(74))),
        code_of(0, deflate(bytes(76))),
        code_of(0, deflate(bytes(75)) + b"x"),
        code_of(0, bytes(75)),
        code_of(0, deflate(bytes(75)), size=599),
        code_of(0, deflate(bytes(75)), size=2**63),
        code_of(0, deflate(bytes(75)) + b"x")[:-1],
        code_of(0, deflate(bytes(75))) + b"x",
        code_of(1, deflate(bytes([255, 255, 255]))),
        code_of(1, deflate(bytes(601))),
        code_of(1, deflate(bytes([3])) + b"x"),
        code_of(3, deflate(bytes([0, 0])) + b"x"),
        code_of(3, deflate(bytes([0])) + b"xy"),
        code_of(3, deflate(bytes([255]))),
        code_of(0, deflate(bytes(75)), table=b""),
        code_of(0, deflate(bytes(75)), table=bytes([0])),
        code_of(0, deflate(bytes(75)), table=bytes([1])),
        code_of(0, deflate(bytes(75)), table=bytes([1, 1])),
        code_of(0, deflate(bytes(75)), table=bytes([1, 0, 0])),
        code_of(0, deflate(bytes(75)), table=bytes([3, 2, 0, 2, 0, 0, 0, 0])),
        code_of(0, deflate(bytes(75)), table=bytes([200, *range(200)])),
        struct.pack("<II", 2**32 - 1, 0),
        struct.pack("<II", 0, 2) + deflate(bytes([1, 0])),
    ],
)
def test_a_wrong_code_is_refused(code):
    with pytest.raises(ArtifactError, match=r"delta\.safetensors is corrupt: its masks cannot"):
        decode_masks(code, WEIGHTS, source=SOURCE)


@pytest.mark.parametrize("kind", range(5))
def test_a_code_that_inflates_to_more_than_the_weights_need_takes_no_memory(kind):
    code = code_of(kind, deflate(bytes(50_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match="corrupt"):
            decode_masks(code, WEIGHTS, source=SOURCE)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def coded():
    generator = np.random.default_rng(3)
    weights = {name: random_weights(generator, (60, 60), "normal") for name in "ab"}
    masks = {
        "a": random_mask(generator, weights["a"], 0.2, by_magnitude=True),
        "b": generator.random((60, 60)) < 0.02,
    }
    return encode_masks(masks, weights), weights


def test_a_code_cut_anywhere_or_for_other_sizes_is_refused(coded):
    code, weights = coded
    for length in range(len(code)):
        with pytest.raises(ArtifactError):
            decode_masks(code[:length], weights, source=SOURCE)
    for other in ({"a": weights["a"]}, {**weights, "c": weights["a"]}, {}):
        with pytest.raises(ArtifactError):
            decode_masks(code, other, source=SOURCE)


def test_a_code_with_any_byte_changed_is_refused_or_gives_masks_of_the_same_shapes(coded):
    code, weights = coded
    generator = np.random.default_rng(0)
    for position in range(len(code)):
        changed = bytearray(code)
        changed[position] ^= int(generator.integers(1, 256))
        try:
            found = decode_masks(bytes(changed), weights, source=SOURCE)
        except ArtifactError:
            continue
        assert {name: mask.shape for name, mask in found.items()} == {"a": (60, 60), "b": (60, 60)}


@given(code=st.binary(max_size=80))
@settings(deadline=None)
def test_any_bytes_are_refused(code):
    with pytest.raises(ArtifactError):
        decode_masks(code, WEIGHTS, source=SOURCE)
