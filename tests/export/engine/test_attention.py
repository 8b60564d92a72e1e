import numpy as np

from export.engine.attention import reference_attention


def test_two_tokens_and_two_heads_by_hand():
    query = np.array([[[1.0, 0.0], [0.0, 2.0]]])
    key = np.array([[[1.0, 1.0], [0.0, 3.0]]])
    value = np.array([[[1.0, 10.0], [3.0, 30.0]]])
    found = reference_attention(query, key, value, np.ones((1, 2)), 2, 0.5)
    first = 1 / (1 + np.exp(-0.5))  # scores 0.5 and 0 in the first head of the first token
    second = 1 / (1 + np.exp(2.0))  # scores 1 and 3 in the second head of the second token
    np.testing.assert_allclose(found[0, 0], [first + 3 * (1 - first), 20.0])
    np.testing.assert_allclose(found[0, 1], [2.0, 10 * second + 30 * (1 - second)])


def test_what_is_masked_counts_for_nothing():
    states = np.random.default_rng(0).standard_normal((3, 1, 5, 8))
    mask = np.array([[1, 0, 1, 1, 0]])
    whole = reference_attention(*states, mask, 2, 1.0)
    alone = reference_attention(states[0], *states[1:, :, mask[0] == 1], np.ones((1, 3)), 2, 1.0)
    np.testing.assert_allclose(whole, alone)
