"""The texts that an exported graph is compared on with what it was made from."""

from pathlib import Path

from pipeline.artifacts.run import TaskLayout
from pipeline.config import ExportConfig
from pipeline.data import LabelledText, read_labelled_text

__all__ = ["comparison_texts"]


def comparison_texts(
    config: ExportConfig, task: TaskLayout, recorded: str | None
) -> LabelledText | None:
    """The first texts of --validation-file, or of the run's validation file; None without either.

    Args:
        config: with the flag, and how many texts are wanted.
        task: the columns.
        recorded: where the run's validation data came from.

    Raises:
        DataError: the file cannot be read.
    """
    path, flag = config.validation_file, "--validation-file"
    if path is None:
        path, flag = Path(recorded or ""), "the run's validation data"
        if not path.is_file():
            return None
    texts = read_labelled_text(
        path,
        flag=flag,
        text_column=task.text_column,
        text_pair_column=task.text_pair_column,
        label_column=task.label_column,
    )
    return texts.head(config.verification_samples)
