"""SQuAD by name, from the hub."""

from collections.abc import Mapping

from pipeline.questions import Questions, questions_of_rows
from smp.hub_data import load_split

__all__ = ["SQUAD_DATASETS", "read_squad"]

SQUAD_DATASETS: Mapping[str, str] = {
    "squad": "rajpurkar/squad",
    "squad_v2": "rajpurkar/squad_v2",
}


def read_squad(task: str, *, dataset: str | None = None) -> tuple[Questions, Questions]:
    """Training and validation questions of SQuAD v1.1 (``squad``) or v2.0 (``squad_v2``).

    Args:
        task: a key of :data:`SQUAD_DATASETS`.
        dataset: hub id or local directory of the data set; None for the published one.

    Raises:
        DataError: the data set cannot be had, or is not of SQuAD's form.
    """
    dataset = dataset or SQUAD_DATASETS[task]
    train, validation = (
        questions_of_rows(
            load_split(task, dataset, None, split),
            f"--task {task}: {dataset} {split}",
            source=f"{dataset} {split}",
        )
        for split in ("train", "validation")
    )
    return train, validation
