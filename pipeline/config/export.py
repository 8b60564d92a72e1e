"""The configuration of `smp-pipeline export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config.fields import check_bounds, check_output_directory, option

__all__ = ["ExportConfig"]


@dataclass(frozen=True)
class ExportConfig:
    """What to export, how, and where to."""

    run: Path = option(help="The run directory that `train` wrote.", positional=True)
    output_dir: Path = option(help="Directory to write; it must not exist or be empty.")
    format: Literal["dense", "packed"] = option(
        "dense",
        help="dense: weights with zeros. packed: bitmap or gaps and values, rebuilt by standard "
        "operators when a session opens.",
    )
    values: Literal["fp32", "fp16"] = option(
        "fp16", help="How the packed format stores the weights that remain."
    )
    model: str | None = option(
        None, help="The base model, if it is no longer where the run directory says."
    )
    validation_file: Path | None = option(
        None, help="Texts for the comparison with PyTorch; the run's validation file if not given."
    )
    verification_samples: int = option(
        64, help="How many texts are compared with PyTorch.", minimum=1
    )
    tolerance: float | None = option(
        None,
        help="Largest allowed difference between a logit of ONNX Runtime and of PyTorch, as a "
        "share of the largest logit (of 1 if that is smaller); 1e-4 for fp32 weights and 1e-2 "
        "for fp16 if not given.",
        minimum=0,
        exclusive_minimum=True,
    )
    opset: int = option(20, help="ONNX opset of the graph.", minimum=18, maximum=23)

    def __post_init__(self) -> None:
        check_bounds(self)
        check_output_directory(self.output_dir)
