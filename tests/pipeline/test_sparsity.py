"""Empty heads and neurons on masks that are counted by hand, and the entropy bound."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.run import MatrixDensity
from pipeline.sparsity import empty_heads, empty_neurons, entropy_bound


def layer_of(layer, hidden=4, wide=6):
    """Masks of one layer that keep everything, and what a manifest says of them."""
    shapes = {
        "value": (hidden, hidden),
        "attention_output": (hidden, hidden),
        "intermediate": (wide, hidden),
        "output": (hidden, wide),
    }
    masks = {f"{layer}.{name}": np.ones(shape, bool) for name, shape in shapes.items()}
    matrices = {
        f"{layer}.{name}": MatrixDensity(name, layer, shape, shape[0] * shape[1])
        for name, shape in shapes.items()
    }
    return masks, matrices


def test_a_head_is_empty_if_each_feature_lacks_its_value_or_its_output():
    masks, matrices = layer_of(3)
    assert empty_heads(masks, matrices, 2) == {3: []}
    # Head 1 has features 2 and 3: one loses its value's row, the other its output's column.
    masks["3.value"][2] = False
    assert empty_heads(masks, matrices, 2) == {3: []}
    masks["3.attention_output"][:, 3] = False
    assert empty_heads(masks, matrices, 2) == {3: [1]}
    assert empty_heads(masks, matrices, 4) == {3: [2, 3]}


def test_heads_are_not_told_without_their_number_or_with_a_wrong_one():
    masks, matrices = layer_of(0)
    assert empty_heads(masks, matrices, None) is None
    assert empty_heads(masks, matrices, 3) is None


def test_a_neuron_is_empty_without_weights_in_or_out():
    masks, matrices = layer_of(0)
    assert empty_neurons(masks, matrices) == {0: (0, 6)}
    masks["0.intermediate"][1] = False
    masks["0.output"][:, 1] = False
    masks["0.output"][:, 5] = False
    masks["0.intermediate"][2, 1:] = False
    assert empty_neurons(masks, matrices) == {0: (2, 6)}


def test_layers_are_told_apart_and_incomplete_ones_left_out():
    masks, matrices = layer_of(10)
    second, more = layer_of(2)
    second["2.value"][:] = False
    masks |= second
    matrices |= more
    assert list(empty_heads(masks, matrices, 2).items()) == [(2, [0, 1]), (10, [])]
    del masks["10.value"], masks["10.output"]
    assert empty_heads(masks, matrices, 2) == {2: [0, 1]}
    assert empty_neurons(masks, matrices) == {2: (0, 6)}


def test_half_the_weights_take_a_bit_each_and_all_or_none_take_nothing():
    matrices = {"a": MatrixDensity("value", 0, (8, 8), 32)}
    assert entropy_bound(matrices) == {"bound_bytes": 8.0, "bound_bits_per_weight": 1.0}
    matrices["b"] = MatrixDensity("value", 1, (8, 8), 64)
    assert entropy_bound(matrices) == {"bound_bytes": 8.0, "bound_bits_per_weight": 0.5}


@given(st.integers(1, 400), st.data())
def test_the_bound_is_near_what_counting_masks_gives(size, data):
    kept = data.draw(st.integers(0, size))
    bits = 8 * entropy_bound({"a": MatrixDensity("value", 0, (1, size), kept)})["bound_bytes"]
    # Of n bits with k ones there are C(n, k); the entropy is above its logarithm, by at most
    # log2(n + 1) (Cover and Thomas, theorem 11.1.3).
    count = math.log2(math.comb(size, kept))
    assert count <= bits + 1e-6
    assert bits <= count + math.log2(size + 1) + 1e-6
