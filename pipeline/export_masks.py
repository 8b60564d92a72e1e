"""A run's masks in the layout of the files that SMP's authors published."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.masks import read_masks
from pipeline.artifacts.published_masks import write_published_masks
from pipeline.artifacts.run import MASKS_FILE, RunManifest, read_run
from pipeline.config import ExportMasksConfig
from pipeline.errors import ArtifactError, ModelError

__all__ = ["PublishedMasks", "export_masks"]


@dataclass(frozen=True)
class PublishedMasks:
    """What was written, and what it does not say itself.

    Attributes:
        output: the .npy file.
        matrices: matrices in it.
        mask_bytes: bytes of packed bits in it.
        label_words: label -> the word whose row scores it; empty for another head than that.
    """

    output: Path
    matrices: int
    mask_bytes: int
    label_words: Mapping[str, str]

    def summary(self) -> str:
        """What the file lacks, for people, in one line."""
        if not self.label_words:
            return "note: the file holds no head, and this run's is not of label words"
        words = ", ".join(f"{word} scores {label}" for label, word in self.label_words.items())
        return f"note: the file does not say which word scores which label: {words}"


def export_masks(config: ExportMasksConfig) -> PublishedMasks:
    """Write a run's masks as the layout has them; nothing else of the run is in there.

    Raises:
        ArtifactError: no run directory, or one that is corrupt or has no masks of frozen weights.
        ModelError: the run's model is no BERT.
        MachineError: the disk is full or not writable.
    """
    run = read_run(config.run)
    _check(config.run, run)
    masks = read_masks(config.run / MASKS_FILE)
    try:
        written = write_published_masks(config.output, masks)
    except ValueError as error:
        raise ArtifactError(f"{config.run / MASKS_FILE}: {error}; train again") from error
    labels = run.task.labels or (run.task.label_column,)
    words = dict(zip(labels, run.head.label_words, strict=False))
    return PublishedMasks(config.output, len(masks), written, words)


def _check(directory: Path, run: RunManifest) -> None:
    if run.base_model.model_type != "bert":
        raise ModelError(
            f"{directory}: the layout is BERT's, and this run prunes a "
            f"{run.base_model.model_type} model; share the run directory itself"
        )
    if run.masks_sha256 is None:
        raise ArtifactError(
            f"{directory}: a run of --method {run.method} has no masks; give one that prunes"
        )
    if run.weights_sha256 is not None:
        raise ArtifactError(
            f"{directory}: its masks are of weights that --method {run.method} changed, which the "
            "layout does not hold; give a run of smp-s or smp-l"
        )
    if sha256_file(directory / MASKS_FILE) != run.masks_sha256:
        raise ArtifactError(
            f"{directory / MASKS_FILE} is not the file that the manifest was written for; "
            "copy the run directory again"
        )
