"""How methods share the density, and what each configuration asks for."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import TrainConfig
from smp.methods import GlobalThreshold, Local, ScoreBased, pruning_method
from smp.patterns import PATTERNS
from smp.selection import top_k_mask

SHAPES = ((8, 16), (8, 16), (16, 8))
ALLOTMENTS = (Local(), ScoreBased(), GlobalThreshold())


def rankings(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) + i for i, shape in enumerate(SHAPES)]


def floor(value):
    return int(value * (1 + 1e-12) + 1e-12)


@pytest.mark.parametrize("allotment", ALLOTMENTS, ids=lambda allotment: type(allotment).__name__)
@pytest.mark.parametrize("name", PATTERNS)
@given(density=st.floats(0.01, 1.0), seed=st.integers(0, 20))
def test_exactly_the_density_remains_in_the_pattern(allotment, name, density, seed):
    pattern = PATTERNS[name]
    scores = rankings(seed)
    units = allotment.unit_masks(scores, density, pattern)
    masks = [
        pattern.weight_mask(mask, ranking.shape)
        for mask, ranking in zip(units, scores, strict=True)
    ]
    kept = [int(mask.sum()) for mask in masks]
    sizes = [ranking.numel() // pattern.block for ranking in scores]
    if isinstance(allotment, Local):
        assert kept == [pattern.block * floor(density * size) for size in sizes]
    else:
        assert sum(kept) == pattern.block * floor(density * sum(sizes))
    if density <= pattern.largest_density:
        for mask in masks:
            assert int(mask.reshape(-1, pattern.group).sum(dim=-1).max()) <= pattern.kept


def test_the_global_threshold_is_one_top_k_over_all_matrices():
    scores = rankings(3)
    together = torch.cat([ranking.reshape(-1) for ranking in scores])
    found = torch.cat(GlobalThreshold().unit_masks(scores, 0.3, PATTERNS["unstructured"]))
    assert torch.equal(found, top_k_mask(together, floor(0.3 * together.numel())))


def config(**changes):
    files = {"train_file": Path("t.csv"), "validation_file": Path("v.csv")}
    return TrainConfig(model="m", output_dir=Path("run"), **files, **{"density": 0.1, **changes})


@pytest.mark.parametrize(
    ("method", "allotment", "scores", "weights", "regularised"),
    [
        ("smp-s", ScoreBased(2.0, redistribute=False), True, False, True),
        ("smp-l", Local(), True, False, True),
        ("magnitude", Local(), False, True, False),
        ("movement", Local(), True, True, False),
        ("soft-movement", GlobalThreshold(), True, True, True),
    ],
)
def test_what_a_method_is(method, allotment, scores, weights, regularised):
    options = {"score_temperature": 2.0, "overflow": "clip"} if method == "smp-s" else {}
    found = pruning_method(config(method=method, pattern="block-4x1", **options))
    assert found.allotment == allotment
    assert found.pattern == PATTERNS["block-4x1"]
    assert found.learns_scores == scores
    assert found.trains_weights == weights
    assert found.regularised == regularised
