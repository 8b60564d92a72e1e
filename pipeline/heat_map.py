"""The densities of a model's matrices as a picture: SVG, or PNG where Pillow is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts.files import staged_file
from pipeline.errors import ArtifactError, ConfigurationError, MachineError

__all__ = ["write_heat_map"]

_CELL, _ROW, _LEFT, _TOP, _MARGIN = 46, 28, 150, 70, 12
_FONT_SIZE = 13
_INK, _PAPER, _HEAT = (28, 33, 38), (255, 255, 255), (0, 114, 178)
# From this share of the strongest colour on, figures are white.
_STRONG = 0.62


def write_heat_map(path: Path, facts: Mapping[str, Any]) -> None:
    """Draw one square a matrix, layer by type; the stronger the colour the more is kept.

    Args:
        path: the file to write; its ending, .svg or .png, says in which format.
        facts: what :func:`pipeline.info.describe` gave.

    Raises:
        ConfigurationError: another ending.
        ArtifactError: nothing is pruned there.
        MachineError: a PNG without Pillow; the disk is full or not writable.
    """
    by_type = facts.get("density_by_type")
    if not by_type:
        raise ArtifactError(
            f"{facts['path']} has no pruned matrices to draw; give a run or a model that was pruned"
        )
    title, subtitle = Path(facts["path"]).name, f"density {facts['density']:.4f}"
    if path.suffix == ".svg":
        from pipeline.report.grids import density_grid
        from pipeline.report.svg import standalone_svg

        named = {
            f"encoder.layer.{layer}.{matrix_type}": density
            for matrix_type, row in by_type.items()
            for layer, density in row.items()
        }
        drawing = standalone_svg([density_grid(title, subtitle, named)])
        with staged_file(path) as scratch:
            scratch.write_text(drawing, encoding="utf-8")
    elif path.suffix == ".png":
        image = _image(f"{title}, {subtitle}", by_type)
        with staged_file(path) as scratch:
            image.save(scratch, format="png")
    else:
        raise ConfigurationError(f"--heat-map must end in .png or .svg, got {path}")


def _image(title: str, by_type: Mapping[str, Mapping[str, float]]) -> Any:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise MachineError(
            "--heat-map: a PNG needs Pillow; install it with: pip install pillow, or give a file "
            "that ends in .svg"
        ) from error
    layers = sorted({layer for row in by_type.values() for layer in row}, key=int)
    most = max(density for row in by_type.values() for density in row.values()) or 1.0
    size = (
        max(_LEFT + len(layers) * _CELL, 420) + _MARGIN,
        _TOP + len(by_type) * _ROW + _MARGIN,
    )
    image = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(_FONT_SIZE)
    draw.text((_MARGIN, 20), title, _INK, font, anchor="lm")
    draw.text((_LEFT - 8, _TOP - 12), "layer", _INK, font, anchor="rm")
    for column, layer in enumerate(layers):
        middle = _LEFT + (column + 0.5) * _CELL
        draw.text((middle, _TOP - 12), layer, _INK, font, anchor="mm")
    for line, (matrix_type, row) in enumerate(by_type.items()):
        top = _TOP + line * _ROW
        name = matrix_type.replace("_", " ")
        draw.text((_LEFT - 8, top + _ROW / 2), name, _INK, font, anchor="rm")
        for layer, density in row.items():
            left = _LEFT + layers.index(layer) * _CELL
            share = density / most
            colour = tuple(round(255 + (heat - 255) * share) for heat in _HEAT)
            box = (left, top, left + _CELL - 2, top + _ROW - 2)
            draw.rectangle(box, fill=colour)
            ink = _PAPER if share > _STRONG else _INK
            at = (left + _CELL / 2 - 1, top + _ROW / 2 - 1)
            draw.text(at, f"{density:.3f}", ink, font, anchor="mm")
    return image
