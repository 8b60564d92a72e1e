"""The configuration of `smp-pipeline bench`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config.fields import check_bounds, option
from pipeline.errors import ConfigurationError

__all__ = ["BenchConfig"]

_SUBJECTS = "What is measured"
_DATA = "Labelled texts"
_TIMING = "Timing"

PeerName = Literal["onnxruntime-int8", "openvino", "pytorch", "pytorch-compiled"]


@dataclass(frozen=True)
class BenchConfig:
    """Which models to measure, on what data, in which scenarios."""

    models: tuple[Path, ...] = option(
        help="Model directories that `export` wrote, or ONNX files of any text model; ratios are "
        "to the first.",
        positional=True,
    )
    output: Path = option(
        Path("bench.json"),
        help="The JSON file to write; a Markdown report and a chart (.svg) go beside it.",
    )
    tokenizer: Path | None = option(
        None,
        help="Directory with the tokenizer.json (and config.json) of ONNX files that are in no "
        "model directory; the file's own directory if not given.",
        group=_SUBJECTS,
    )
    max_length: int | None = option(
        None,
        help="Longest text in tokens for such ONNX files; from tokenizer_config.json or "
        "config.json if not given.",
        minimum=2,
        group=_SUBJECTS,
    )
    providers: tuple[str, ...] = option(
        ("cpu",),
        help="Execution providers of ONNX Runtime, as cpu or CPUExecutionProvider.",
        group=_SUBJECTS,
    )
    peers: tuple[PeerName, ...] = option(
        (), help="Other engines to run the first model on, in the same turns.", group=_SUBJECTS
    )
    pytorch_model: str | None = option(
        None,
        help="Run directory, or Hugging Face model directory or hub id, that peers pytorch and "
        "pytorch-compiled run.",
        group=_SUBJECTS,
    )
    validation_file: Path | None = option(
        None,
        help="Labelled texts: csv, tsv, json, jsonl or parquet; without them, only size and "
        "speed are measured.",
        group=_DATA,
    )
    text_column: str | None = option(
        None, help="Column of the text; the model's if not given.", group=_DATA
    )
    text_pair_column: str | None = option(
        None, help="Column of the second text; the model's if not given.", group=_DATA
    )
    label_column: str | None = option(
        None, help="Column of the label; the model's if not given.", group=_DATA
    )
    labels: tuple[str, ...] = option(
        (),
        help="Label names in the order of the logits; the model's if not given.",
        group=_DATA,
    )
    max_samples: int | None = option(
        None, help="Use the first so many examples; all if not given.", minimum=1, group=_DATA
    )
    scenarios: tuple[Literal["grid", "single-stream", "multi-stream", "offline"], ...] = option(
        ("grid",),
        help="grid: every batch size with every sequence length; the others take texts of "
        "--validation-file at their own lengths: one at a time, eight together, all of them.",
        group=_TIMING,
    )
    batch_sizes: tuple[int, ...] = option(
        (1, 8), help="Batch sizes of the grid.", minimum=1, group=_TIMING
    )
    sequence_lengths: tuple[int, ...] = option(
        (32, 128), help="Sequence lengths of the grid, in tokens.", minimum=2, group=_TIMING
    )
    offline_batch_size: int = option(
        32, help="Texts a batch in the scenario offline.", minimum=1, group=_TIMING
    )
    offline_texts: int = option(
        256, help="Texts a run in the scenario offline.", minimum=1, group=_TIMING
    )
    threads: tuple[int, ...] = option(
        (0,),
        help="Threads of each session; 0 takes all cores.",
        minimum=0,
        maximum=1024,
        group=_TIMING,
    )
    repetitions: int = option(
        30, help="Timed runs of each model in each cell.", minimum=3, group=_TIMING
    )
    warmup: int = option(
        3,
        help="Least untimed runs of each model in each cell; more follow until their time is "
        "stable.",
        minimum=1,
        group=_TIMING,
    )
    startups: int = option(
        5,
        help="Fresh processes that measure the load time and memory of each model.",
        minimum=1,
        group=_TIMING,
    )
    profile: bool = option(
        False,
        help="Show the time by operator of all models, not of engine models alone.",
    )
    bootstrap_samples: int = option(
        1000,
        help="Bootstrap samples behind each 95 % interval that is not of a share.",
        minimum=100,
    )
    seed: int = option(
        0, help="Seed of the bootstrap and of the order of the timed runs.", minimum=0
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.models:
            raise ConfigurationError("MODELS: give at least one model directory or ONNX file")
        if self.output.suffix != ".json":
            raise ConfigurationError(f"--output must end in .json, got {self.output}")
        for name in ("scenarios", "batch_sizes", "sequence_lengths", "threads", "providers"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                flag = "--" + name.replace("_", "-")
                raise ConfigurationError(f"{flag} must be one or more different values")
        for name in ("peers", "labels"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ConfigurationError(f"--{name} has one value twice; give each once")
        if self.pytorch_model is not None and not {"pytorch", "pytorch-compiled"} & set(self.peers):
            raise ConfigurationError(
                "--pytorch-model is for --peers pytorch and --peers pytorch-compiled; give one of "
                "them, or leave it out"
            )
        own_lengths = [scenario for scenario in self.scenarios if scenario != "grid"]
        if own_lengths and self.validation_file is None:
            raise ConfigurationError(
                f"--scenarios {own_lengths[0]} takes the texts of a data file; give "
                "--validation-file, or --scenarios grid"
            )
