"""Splits of data sets on the hub."""

from datasets import Dataset, load_dataset

from pipeline.errors import DataError

__all__ = ["load_split"]


def load_split(task: str, dataset: str, configuration: str | None, split: str) -> Dataset:
    """One split of a data set.

    Args:
        task: the ``--task`` that asked for it, for messages.
        dataset: hub id or local directory.
        configuration: the configuration, None for the only one.
        split: the split.

    Raises:
        DataError: the data set cannot be had.
    """
    try:
        return load_dataset(dataset, configuration, split=split)
    except Exception as error:  # `datasets` and the hub client raise types of many packages
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise DataError(
            f"--task {task}: cannot fetch {dataset} ({reason}); check the network, "
            "or give --train-file and --validation-file"
        ) from error
