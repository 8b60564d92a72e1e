"""The configuration of `smp-pipeline export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config.fields import check_bounds, check_output_directory, option
from pipeline.errors import ConfigurationError

__all__ = ["ExportConfig"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, how, and where to.

    Exactly one of ``run`` and ``from_onnx`` is given.
    """

    run: Path | None = option(
        None, help="The run directory that `train` wrote; or give --from-onnx.", positional=True
    )
    output_dir: Path = option(help="Directory to write; it must not exist or be empty.")
    format: Literal["dense", "packed", "engine"] = option(
        "dense",
        help="dense: weights with zeros. packed: bitmap or gaps and values, rebuilt by standard "
        "operators when a session opens. engine: sparse operators of our native library, fast "
        "and small.",
    )
    from_onnx: Path | None = option(
        None,
        help="An ONNX file with sparse weights to convert to --format engine, in the place of RUN: "
        "model.onnx of a dense or packed export, or one that another tool pruned.",
    )
    compute: Literal["int8", "fp32"] = option(
        "int8",
        help="How --format engine computes. int8: weights rounded by row, activations by token on "
        "the fly. fp32: as exact as the stored weights (--values).",
    )
    values: Literal["fp32", "fp16"] = option(
        "fp16",
        help="How packed, and engine with --compute fp32, store the weights that remain; with "
        "--compute int8 they are int8.",
    )
    model: str | None = option(
        None, help="The base model, if it is no longer where the run directory says."
    )
    validation_file: Path | None = option(
        None,
        help="Texts for the comparison with PyTorch (with --from-onnx: with that file); the run's "
        "validation file if not given.",
    )
    verification_samples: int = option(64, help="How many texts are compared.", minimum=1)
    tolerance: float | None = option(
        None,
        help="Largest allowed difference between a logit of ONNX Runtime and of PyTorch, as a "
        "share of the largest logit (of 1 if that is smaller); 1e-4 for fp32 weights, 1e-2 "
        "for fp16 and 0.1 for int8 if not given.",
        minimum=0,
        exclusive_minimum=True,
    )
    opset: int = option(
        20, help="ONNX opset of the graph; --from-onnx keeps the file's.", minimum=18, maximum=23
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        check_output_directory(self.output_dir)
        if (self.run is None) == (self.from_onnx is None):
            given = "neither" if self.run is None else "both"
            raise ConfigurationError(
                f"export takes a run directory (RUN) or an ONNX file (--from-onnx), got {given}; "
                "give one of the two"
            )
        if self.from_onnx is not None and self.format != "engine":
            raise ConfigurationError(
                f"--from-onnx converts to --format engine only, got {self.format}; "
                "add --format engine"
            )
        if self.from_onnx is not None and self.model is not None:
            raise ConfigurationError("--model is the base model of a RUN; leave it out")

    @property
    def weight_values(self) -> Literal["fp32", "fp16", "int8"]:
        """How the weights that remain are stored."""
        if self.format == "dense":
            return "fp32"
        if self.format == "engine" and self.compute == "int8":
            return "int8"
        return self.values

    @property
    def share_allowed(self) -> float:
        """The tolerance, given or by the stored weights."""
        return self.tolerance or {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}[self.weight_values]
