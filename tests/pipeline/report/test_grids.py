"""The matrices of a model by type and layer."""

import math
import re

import pytest

from pipeline.report.grids import density_grid, kernel_grid, place
from tests.pipeline.report.conftest import DENSITIES


@pytest.mark.parametrize(
    ("name", "matrix_type", "layer"),
    [
        ("encoder.layer.3.attention.self.query.weight", "attention.self.query", 3),
        ("transformer.layer.11.ffn.lin1.weight", "ffn.lin1", 11),
        ("encoder.layers.0.mlp.fc1.weight", "mlp.fc1", 0),
        ("layer.0.query", "query", 0),
        ("smp_encoder_0/layer.5/query", "query", 5),  # as the native library names them
        ("/encoder/layer.2/output/dense/MatMul", "output/dense", 2),
        ("pooler.dense.weight", "pooler.dense.weight", None),
        ("layer.99999.query", "layer.99999.query", None),
        ("", "", None),
    ],
)
def test_names_tell_type_and_layer(name: str, matrix_type: str, layer: int | None) -> None:
    assert place(name) == (matrix_type, layer)


def test_a_square_a_matrix_the_stronger_the_denser() -> None:
    content = density_grid("Kept", "model", DENSITIES).content
    assert content.count('class="matrix"') == len(DENSITIES)
    strengths = [float(value) for value in re.findall(r'fill-opacity="([\d.]+)"', content)]
    assert strengths[:-1] == sorted(strengths[:-1])
    assert "density 0.300, the most" in content


def test_kernels_have_a_colour_each_and_a_legend() -> None:
    kernels = {name: ("int8" if d < 0.2 else "dense", d) for name, d in DENSITIES.items()}
    content = kernel_grid("Kernels", "model", kernels).content
    assert content.count('class="matrix"') == len(DENSITIES)
    assert len(set(re.findall(r'class="cell kernel (series s\d)"', content))) == 2
    assert content.count(">int8</text>") == content.count(">dense</text>") == 1


def test_any_density_and_number_of_layers_can_be_drawn() -> None:
    many = {f"layer.{layer}.{kind}": 0.1 for layer in range(80) for kind in "ab"}
    assert density_grid("Kept", "model", many).content.count('class="matrix"') == 160
    odd = {"a": math.nan, "b": math.inf, "c": -1.0, "layer.0.d": 2.0}
    content = density_grid("Kept", "model", odd).content
    assert content.count('class="matrix"') == 4
    assert all(0 <= float(v) <= 1 for v in re.findall(r'fill-opacity="([^"]+)"', content))
