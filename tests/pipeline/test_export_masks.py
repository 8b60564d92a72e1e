"""A run's masks as a file in the published layout: which runs have such, and what is said."""

import json
import shutil

import numpy as np
import pytest

from pipeline.artifacts.masks import read_masks
from pipeline.artifacts.published_masks import read_published_masks
from pipeline.config import ExportMasksConfig
from pipeline.errors import ArtifactError, ModelError
from pipeline.export_masks import export_masks


@pytest.fixture
def changed(tiny_run, tmp_path):
    """A function that copies the run with other values in its manifest."""

    def copy(**changes):
        run = shutil.copytree(tiny_run, tmp_path / "run")
        content = json.loads((run / "manifest.json").read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            place = content
            for parent in parents:
                place = place[parent]
            place[last] = value
        (run / "manifest.json").write_text(json.dumps(content))
        (run / "weights.safetensors").touch()
        return run

    return copy


def test_the_file_holds_the_masks_of_the_run(command, tiny_run, tmp_path):
    output = tmp_path / "masks.npy"
    done = command("export-masks", tiny_run, "--output", output, "--json")
    assert done.code == 0, done.err
    assert f"wrote {output}" in done.err
    assert "holds no head, and this run's is not of label words" in done.err
    masks = read_masks(tiny_run / "masks.safetensors")
    found = read_published_masks(output, {name: mask.shape for name, mask in masks.items()})
    assert all(np.array_equal(found[name], masks[name]) for name in masks)
    facts = json.loads(done.out)
    assert facts["matrices"] == len(masks)
    assert facts["mask_bytes"] == sum(mask.size for mask in masks.values()) // 8


def test_the_words_are_said_since_the_file_has_none(changed, tmp_path):
    run = changed(head__kind="label-words", head__label_words=["no", "yes"])
    written = export_masks(ExportMasksConfig(run, tmp_path / "masks.npy"))
    assert written.label_words == {"0": "no", "1": "yes"}
    assert "no scores 0, yes scores 1" in written.summary()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"base_model__model_type": "roberta"}, ModelError, "the layout is BERT's"),
        ({"method": "finetune", "masks_sha256": None}, ArtifactError, "finetune has no masks"),
        (
            {"method": "movement", "weights_sha256": "0" * 64},
            ArtifactError,
            "of weights that --method movement changed",
        ),
        ({"masks_sha256": "0" * 64}, ArtifactError, "is not the file that the manifest"),
    ],
)
def test_what_the_layout_cannot_hold_is_refused(changed, tmp_path, changes, error, message):
    config = ExportMasksConfig(changed(**changes), tmp_path / "masks.npy")
    with pytest.raises(error, match=message):
        export_masks(config)
    assert not config.output.exists()
