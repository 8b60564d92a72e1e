"""The heat map: every matrix is drawn, as strong as it is dense, in both formats."""

import sys
import xml.etree.ElementTree as ET

import pytest

from pipeline.errors import ArtifactError, ConfigurationError, MachineError
from pipeline.heat_map import write_heat_map

FACTS = {
    "path": "runs/reviews",
    "density": 0.25,
    "density_by_type": {
        "query": {str(layer): 0.1 + 0.05 * layer for layer in range(12)},
        "attention_output": {str(layer): 0.0 for layer in range(12)},
    },
}


def test_a_png_has_a_cell_of_its_strength_for_each_matrix(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    write_heat_map(tmp_path / "map.png", FACTS)
    with image_module.open(tmp_path / "map.png") as image:
        assert image.format == "PNG"
        pixels = image.convert("RGB")
        # Layers in numerical order; the corner of a cell has no letters in it.
        query = [pixels.getpixel((150 + 46 * layer + 1, 71)) for layer in range(12)]
        output = [pixels.getpixel((150 + 46 * layer + 1, 99)) for layer in range(12)]
        outside = pixels.getpixel((150 + 46 * 12 + 1, 71))
    assert query[11] == (0, 114, 178)
    reds = [red for red, _, _ in query]
    assert reds == sorted(reds, reverse=True)
    assert len(set(reds)) == 12
    assert set(output) == {(255, 255, 255)}
    assert outside == (255, 255, 255)


def test_an_svg_has_a_named_cell_for_each_matrix(tmp_path):
    write_heat_map(tmp_path / "map.svg", FACTS)
    svg = ET.parse(tmp_path / "map.svg").getroot()
    titles = [node.text for node in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert sum(title.startswith("encoder.layer.") for title in titles) == 24
    assert "encoder.layer.11.query: 0.650" in titles


def test_png_without_pillow_names_both_ways_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MachineError, match=r"pip install pillow, or give a file .* in \.svg"):
        write_heat_map(tmp_path / "map.png", FACTS)
    assert not list(tmp_path.iterdir())


def test_other_endings_and_what_has_no_matrices_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"must end in \.png or \.svg, got .*map\.jpg"):
        write_heat_map(tmp_path / "map.jpg", FACTS)
    with pytest.raises(ArtifactError, match="runs/reviews has no pruned matrices to draw"):
        write_heat_map(tmp_path / "map.png", {**FACTS, "density_by_type": {}})


def test_the_command_draws_a_run(command, tiny_run, tmp_path):
    result = command("info", tiny_run, "--heat-map", tmp_path / "map.svg", "--json")
    assert result.code == 0, result.err
    assert f"wrote {tmp_path / 'map.svg'}" in result.err
    assert "encoder.layer.1.output: 0." in (tmp_path / "map.svg").read_text()
    alone = command("info", "--native", "--heat-map", tmp_path / "map.svg")
    assert alone.code == 2
    assert "--heat-map needs PATH" in alone.err
