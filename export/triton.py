"""A model directory of the format ``engine`` becomes a model repository for Triton."""

import json
import math
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipeline import native
from pipeline.artifacts.exported import (
    DATA_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    ExportManifest,
)
from pipeline.artifacts.run import TaskKind, is_by_token
from pipeline.artifacts.triton import TritonManifest, write_triton_manifest
from pipeline.errors import ConfigurationError, MachineError

__all__ = ["check_kind", "lay_out"]

_VERSION = "1"
_LABELS_FILE = "labels.txt"
# Texts of one request, and of requests that run together.
_LARGEST_BATCH = 64

_MODEL_CONFIG = """\
name: {name}
backend: "onnxruntime"
max_batch_size: {largest_batch}
input [
{inputs}
]
output [
{outputs}
]
# Requests that wait while another runs are merged, if their texts have equally many tokens.
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
# Threads of one batch; 0 takes as many as the machine has cores, whatever the container may use.
parameters {{ key: "intra_op_thread_count" value {{ string_value: "0" }} }}
# An absolute path: Triton does not look for it in the repository.
model_operations {{ op_library_filename: {library} }}
"""

_TEXT_CONFIG = """\
name: {name}
backend: "python"
max_batch_size: {largest_batch}
input [
{inputs}
]
output [
{outputs}
]
# Requests that wait while another runs are merged, whatever the length of their texts.
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""

_README = """\
# {name}: a model repository for Triton Inference Server

`{name}` takes tokens and gives logits; `{text_name}` takes texts, asks `{name}`, and gives
{answer}. manifest.json says what the model is.

## Start

`{text_name}` needs the Python package tokenizers in Triton's image. Build one from an image of
tritonserver that has the backends onnxruntime and python:

```dockerfile
ARG TRITON_IMAGE
FROM $TRITON_IMAGE
RUN pip install tokenizers
```

```bash
docker build --build-arg TRITON_IMAGE=... -t triton-with-tokenizers .
docker run --rm -p 8000:8000 -p 8001:8001 -v "$PWD:{repository}" triton-with-tokenizers \\
    tritonserver --model-repository={repository}
```

Without that package, remove the directory `{text_name}` (Triton does not start with a model that it
cannot load) and send tokens.

{name}/config.pbtxt names the native library by its path on the server:

    {library}

Change it there if the server sees this directory elsewhere. The library is for {machine} with
a C library no older than that of the machine that exported.

## Send texts

```python
import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient("localhost:8000")
inputs = []
for name, text in {texts}.items():
    inputs.append(triton.InferInput(name, [1, 1], "BYTES"))
    inputs[-1].set_data_from_numpy(np.array([[text]], dtype=np.object_))
answer = client.infer("{text_name}", inputs)
print({printed})
```

Up to {largest_batch} texts go into one request, as the shape [texts, 1].

## Send tokens

```python
import numpy as np
import tritonclient.http as triton
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({max_length})
tokenizer.enable_padding(pad_id={pad_token_id}, pad_to_multiple_of={multiple})
(encoding,) = tokenizer.encode_batch([{example}])
fields = {fields}
client = triton.InferenceServerClient("localhost:8000")
inputs = []
for name, field in fields.items():
    tokens = np.array([getattr(encoding, field)])
    inputs.append(triton.InferInput(name, tokens.shape, "INT64"))
    inputs[-1].set_data_from_numpy(tokens)
print(client.infer("{name}", inputs).as_numpy("logits"))
```

Triton merges requests whose rows are of one length only. Padding to a multiple makes more of them
equal; the engine does not compute it.
"""

_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}


def check_kind(kind: TaskKind) -> None:
    """Refuse the kinds of tasks that a repository cannot be laid out for.

    Raises:
        ConfigurationError: it is one of them.
    """
    if is_by_token(kind):
        raise ConfigurationError(
            f"--format triton lays out models that give a label or a number a text, this one is "
            f"for {kind}; use --format engine"
        )


def lay_out(directory: Path, manifest: ExportManifest, *, name: str, repository: str) -> None:
    """Turn a (staged) model directory into a model repository, and describe it.

    Args:
        directory: model.onnx and the tokenizer's files; the former moves.
        manifest: what the export says of the model, of the format ``engine``.
        name: Triton's name for the model.
        repository: where Triton finds the directory.

    Raises:
        MachineError: the native library is missing, or is one that Triton cannot load.
    """
    library = native.library_path()
    if library.suffix != ".so":
        raise MachineError(
            f"Triton runs on Linux, and {library} is this machine's native library; "
            "export with --format triton on Linux"
        )
    text_name = f"{name}_text"
    described = TritonManifest(
        model_name=name,
        text_model_name=text_name,
        library=str(PurePosixPath(repository) / name / _VERSION / library.name),
        model=manifest,
    )
    _write_model(directory, directory / name, described, library)
    _write_text_model(directory, directory / text_name, described)
    write_triton_manifest(directory, described)
    readme = _readme(described, repository)
    (directory / "README.md").write_text(readme, encoding="utf-8")


def _write_model(directory: Path, target: Path, described: TritonManifest, library: Path) -> None:
    manifest = described.model
    version = target / _VERSION
    version.mkdir(parents=True)
    (directory / MODEL_FILE).rename(version / MODEL_FILE)
    if manifest.data_sha256 is not None:
        (directory / DATA_FILE).rename(version / DATA_FILE)
    shutil.copyfile(library, version / library.name)
    labels = manifest.task.labels
    if labels:
        # A line a label, and no way to write a label of two lines.
        lines = "".join(label.replace("\n", " ") + "\n" for label in labels)
        (target / _LABELS_FILE).write_text(lines, encoding="utf-8")
    config = _MODEL_CONFIG.format(
        name=_quoted(described.model_name),
        largest_batch=_LARGEST_BATCH,
        inputs=",\n".join(_tensor(each, "TYPE_INT64", -1) for each in manifest.inputs),
        outputs=_tensor(
            "logits", "TYPE_FP32", max(1, len(labels)), labels=_LABELS_FILE if labels else None
        ),
        library=_quoted(described.library),
    )
    (target / "config.pbtxt").write_text(config, encoding="ascii")


def _write_text_model(directory: Path, target: Path, described: TritonManifest) -> None:
    manifest = described.model
    version = target / _VERSION
    version.mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("triton_text.py"), version / "model.py")
    shutil.copyfile(directory / TOKENIZER_FILE, version / TOKENIZER_FILE)
    settings = {
        "model": described.model_name,
        "texts": _text_inputs(manifest),
        "inputs": manifest.inputs,
        "labels": manifest.task.labels,
        "max_length": manifest.task.max_length,
        "pad_token_id": manifest.pad_token_id,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (version / "settings.json").write_text(text, encoding="utf-8")
    count = max(1, len(manifest.task.labels))
    outputs = [_tensor("score", "TYPE_FP32", 1)]
    if manifest.task.labels:
        outputs = [
            _tensor("label", "TYPE_STRING", 1),
            _tensor("probabilities", "TYPE_FP32", count),
        ]
    config = _TEXT_CONFIG.format(
        name=_quoted(described.text_model_name),
        largest_batch=_LARGEST_BATCH,
        inputs=",\n".join(_tensor(each, "TYPE_STRING", 1) for each in _text_inputs(manifest)),
        outputs=",\n".join([*outputs, _tensor("logits", "TYPE_FP32", count)]),
    )
    (target / "config.pbtxt").write_text(config, encoding="ascii")


def _text_inputs(manifest: ExportManifest) -> Sequence[str]:
    return ["text"] if manifest.task.text_pair_column is None else ["text", "text_pair"]


def _tensor(name: str, data_type: str, dimension: int, *, labels: str | None = None) -> str:
    """One entry of ``input`` or ``output``; the batch is not among its dimensions."""
    file = "" if labels is None else f" label_filename: {_quoted(labels)}"
    return f"  {{ name: {_quoted(name)} data_type: {data_type} dims: [ {dimension} ]{file} }}"


def _quoted(text: str) -> str:
    """A text as a string of protobuf's text format."""
    plain = (
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{"".join(plain)}"'


def _readme(described: TritonManifest, repository: str) -> str:
    manifest = described.model
    examples = dict(zip(_text_inputs(manifest), ("A text.", "Its partner."), strict=False))
    values = tuple(examples.values())
    outputs = ("label", "probabilities") if manifest.task.labels else ("score",)
    return _README.format(
        name=described.model_name,
        text_name=described.text_model_name,
        answer=" and ".join(outputs),
        repository=repository,
        library=described.library,
        machine=f"{platform.machine()} Linux",
        texts=json.dumps(examples),
        printed=", ".join(f'answer.as_numpy("{output}")' for output in outputs),
        largest_batch=_LARGEST_BATCH,
        max_length=manifest.task.max_length,
        pad_token_id=manifest.pad_token_id,
        # The longest row, padded, is not longer than the model's longest.
        multiple=math.gcd(16, manifest.task.max_length),
        example=json.dumps(values[0] if len(values) == 1 else list(values)),
        fields=json.dumps({each: _FIELDS[each] for each in manifest.inputs}),
    )
