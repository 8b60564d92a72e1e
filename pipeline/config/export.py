"""The configuration of `smp-pipeline export`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config.fields import check_bounds, check_output_directory, option
from pipeline.errors import ConfigurationError

__all__ = ["ExportConfig", "Fusion"]


Fusion = Literal["attention", "skip-layer-norm", "gelu", "embed-layer-norm"]

_TRITON = "Triton"
# What Triton takes as a directory and clients can put into a URL as it is.
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, how, and where to.

    Exactly one of ``run``, ``from_delta`` and ``from_onnx`` is given.
    """

    run: Path | None = option(
        None,
        help="The run directory that `train` wrote; or give --from-delta or --from-onnx.",
        positional=True,
    )
    output_dir: Path = option(help="Model directory to write: a new or an empty one.")
    format: Literal["dense", "sparse", "packed", "engine", "triton", "delta"] = option(
        "dense",
        help="dense: weights with zeros. sparse: the ONNX standard's sparse initializers. packed: "
        "positions and values, rebuilt by standard operators when a session opens; the smallest "
        "that stock ONNX Runtime loads. engine: sparse operators of our native library, fast and "
        "small. triton: the engine in a model repository for Triton Inference Server. delta: "
        "masks and head alone, to rebuild any other format beside the base model.",
    )
    from_delta: Path | None = option(
        None,
        help="A directory of --format delta to export in the place of RUN; it needs the base "
        "model (--model, if it is elsewhere).",
    )
    from_onnx: Path | None = option(
        None,
        help="An ONNX file with sparse weights to convert to --format engine, in the place of RUN: "
        "model.onnx of a dense or packed export (of which --format triton can be made as well), or "
        "one that another tool pruned.",
    )
    compute: Literal["int8", "fp32"] | None = option(
        None,
        help="How --format engine (and triton) computes; int8 if not given. int8: weights rounded "
        "by row, activations by token on the fly. fp32: as exact as the stored weights (--values).",
    )
    values: Literal["fp32", "fp16", "int8"] | None = option(
        None,
        help="How the weights that remain are stored; int8 is by output row, symmetric. If not "
        "given: dense and sparse fp32, packed fp16, engine int8 (fp16 with --compute fp32).",
    )
    embeddings: Literal["fp32", "fp16", "int8"] | None = option(
        None,
        help="How embedding tables are stored, on disk and in memory; int8 is by row, symmetric. "
        "If not given: dense and sparse fp32, packed and engine fp16.",
    )
    fold_constants: bool = option(
        True, help="Compute what depends on no input while exporting.", group="Graph"
    )
    remove_structure: bool = option(
        False,
        help="Take out neurons and attention heads that the masks leave empty, with what they add "
        "folded into biases. Matrices get smaller than the base model's.",
        group="Graph",
    )
    fuse: tuple[Fusion, ...] = option(
        (),
        help="Put in ONNX Runtime's own operators (com.microsoft) for these parts; no other "
        "runtime opens the file then.",
        group="Graph",
    )
    model_name: str | None = option(
        None,
        help="Name of the model in Triton; the last part of --output-dir if not given.",
        group=_TRITON,
    )
    triton_repository: str | None = option(
        None,
        help="Where the server finds --output-dir, for the path of the native library in "
        "config.pbtxt; /models if not given.",
        group=_TRITON,
    )
    prune_vocabulary: Path | None = option(
        None,
        help="A text file (UTF-8, a text a line) of the kind that the model will see: tokens that "
        "never occur in it are dropped from tokenizer and embeddings.",
    )
    model: str | None = option(
        None, help="The base model, if it is no longer where the run directory says."
    )
    validation_file: Path | None = option(
        None,
        help="Texts for the comparison with PyTorch (with --from-onnx: with that file); the run's "
        "validation file if not given.",
    )
    verification_samples: int = option(
        64, help="Use the first so many texts for the comparison.", minimum=1
    )
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
        given = [
            name
            for name, value in (
                ("RUN", self.run),
                ("--from-delta", self.from_delta),
                ("--from-onnx", self.from_onnx),
            )
            if value is not None
        ]
        if len(given) != 1:
            raise ConfigurationError(
                "export takes a run directory (RUN), a delta (--from-delta) or an ONNX file "
                f"(--from-onnx), got {' and '.join(given) or 'none'}; give one of them"
            )
        if self.from_onnx is not None:
            self._check_from_onnx()
        if self.format == "delta":
            self._check_delta()
        if self.format == "triton":
            self._check_triton()
        else:
            for name in ("model_name", "triton_repository"):
                if getattr(self, name) is not None:
                    raise ConfigurationError(
                        f"--{name.replace('_', '-')} is for --format triton, got --format "
                        f"{self.format}; leave it out"
                    )
        if not self.is_engine and self.compute is not None:
            raise ConfigurationError(
                f"--compute is for --format engine, got --format {self.format}; leave it out"
            )
        if self.engine_compute == "int8" and self.values not in (None, "int8"):
            raise ConfigurationError(
                f"--format {self.format} with --compute int8 stores int8 values, got --values "
                f"{self.values}; add --compute fp32 or leave --values out"
            )
        if self.engine_compute == "fp32" and self.values == "int8":
            raise ConfigurationError(
                f"--format {self.format} with --compute fp32 stores fp32 or fp16 values, got "
                "--values int8; use --compute int8"
            )
        if "embed-layer-norm" in self.fuse and self.embedding_values != "fp32":
            raise ConfigurationError(
                f"--fuse embed-layer-norm needs float32 embedding tables, got "
                f"{self.embedding_values}; add --embeddings fp32 or leave it out"
            )
        if self.is_engine and (self.fuse or self.remove_structure):
            flag = "--fuse" if self.fuse else "--remove-structure"
            raise ConfigurationError(
                f"{flag} is for graphs of standard operators, --format {self.format} has its own; "
                "leave it out"
            )

    def _check_from_onnx(self) -> None:
        if not self.is_engine:
            raise ConfigurationError(
                f"--from-onnx converts to --format engine or triton, got {self.format}; "
                "add --format engine"
            )
        for name in ("model", "embeddings", "prune_vocabulary"):
            if getattr(self, name) is not None:
                raise ConfigurationError(
                    f"--{name.replace('_', '-')} is for a RUN or a delta; leave it out with "
                    "--from-onnx"
                )
        if not self.fold_constants:
            raise ConfigurationError(
                "--no-fold-constants is for a RUN or a delta; leave it out with --from-onnx"
            )

    def _check_triton(self) -> None:
        if not _MODEL_NAME.fullmatch(self.triton_name):
            raise ConfigurationError(
                f"Triton's name for the model must have letters, digits, '.', '_' and '-' only, "
                f"got {self.triton_name!r}; choose another with --model-name"
            )
        path = self.triton_path
        if not path.startswith("/") or not path.isprintable():
            raise ConfigurationError(
                f"--triton-repository must be an absolute path, got {path!r}; give the one that "
                "--model-repository of tritonserver will have"
            )

    def _check_delta(self) -> None:
        if self.from_delta is not None:
            raise ConfigurationError(
                "--from-delta has a delta already; choose another --format than delta"
            )
        for name in ("values", "embeddings", "prune_vocabulary", "validation_file", "tolerance"):
            if getattr(self, name) is not None:
                raise ConfigurationError(
                    f"--format delta has no weights and no graph; give --{name.replace('_', '-')} "
                    "when another format is made from it"
                )
        if self.fuse or self.remove_structure or not self.fold_constants:
            raise ConfigurationError(
                "--format delta has no graph; give --fuse, --remove-structure and "
                "--no-fold-constants when another format is made from it"
            )

    @property
    def is_engine(self) -> bool:
        """Whether the graph has the engine's operators."""
        return self.format in ("engine", "triton")

    @property
    def graph_format(self) -> Literal["dense", "sparse", "packed", "engine"]:
        """How the graph stores the pruned weights: Triton's is the engine's."""
        assert self.format != "delta"
        return "engine" if self.format == "triton" else self.format

    @property
    def triton_name(self) -> str:
        """The model's name in Triton."""
        return self.output_dir.name if self.model_name is None else self.model_name

    @property
    def triton_path(self) -> str:
        """Where Triton finds the output directory."""
        return "/models" if self.triton_repository is None else self.triton_repository

    @property
    def engine_compute(self) -> Literal["int8", "fp32"] | None:
        """How the engine's operators compute; None for other formats."""
        return (self.compute or "int8") if self.is_engine else None

    @property
    def weight_values(self) -> Literal["fp32", "fp16", "int8"]:
        """How the weights that remain are stored."""
        if self.values is not None:
            return self.values
        if self.format in ("dense", "sparse"):
            return "fp32"
        return "int8" if self.engine_compute == "int8" else "fp16"

    @property
    def embedding_values(self) -> Literal["fp32", "fp16", "int8"]:
        """How embedding tables are stored."""
        if self.embeddings is not None:
            return self.embeddings
        small = (self.format == "packed" or self.is_engine) and self.from_onnx is None
        return "fp16" if small else "fp32"

    @property
    def share_allowed(self) -> float:
        """The tolerance, given or by the stored weights."""
        by_values = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}
        return self.tolerance or max(
            by_values[self.weight_values], by_values[self.embedding_values]
        )
