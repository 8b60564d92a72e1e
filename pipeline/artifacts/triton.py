"""The Triton model repository: what `export --format triton` leaves, for tritonserver to read.

DIR/
  NAME/config.pbtxt              the model: tokens in, logits out, in Triton's ONNX Runtime backend
  NAME/labels.txt                for Triton's classification extension; none for regression
  NAME/1/model.onnx              the graph of the format ``engine``
  NAME/1/model.onnx.data         the weights of a model that is too large for one ONNX file
  NAME/1/libsmp_engine.so        the native library with its operators
  NAME_text/config.pbtxt         texts in, label and probabilities out, in the Python backend
  NAME_text/1/model.py           what it runs, with its settings.json and tokenizer.json
  manifest.json                  this module's TritonManifest, which Triton does not look at
  tokenizer.json, config.json    for clients that tokenise (other tokenizer files lie beside them)
  README.md                      how to start it and to ask it
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.exported import MANIFEST_FILE, ExportManifest
from pipeline.artifacts.files import read_json
from pipeline.artifacts.manifest import from_json, to_json

__all__ = ["KIND", "TritonManifest", "read_triton", "write_triton_manifest"]

KIND = "smp-triton-repository"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TritonManifest:
    """What a model repository for Triton holds.

    Attributes:
        model_name: Triton's name of the model that takes tokens.
        text_model_name: Triton's name of the model that takes texts.
        library: the native library's path on the server.
        model: what the export said of the model.
    """

    model_name: str
    text_model_name: str
    library: str
    model: ExportManifest


def write_triton_manifest(directory: Path, manifest: TritonManifest) -> None:
    """Write ``manifest.json`` into a (staged) model repository."""
    content = {"kind": KIND, "schema_version": SCHEMA_VERSION, **to_json(manifest)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (directory / MANIFEST_FILE).write_text(text, encoding="utf-8")


def read_triton(directory: Path) -> TritonManifest:
    """Read and check a model repository's manifest.

    Raises:
        ArtifactError: no model repository, of a newer schema, or corrupt.
    """
    path = directory / MANIFEST_FILE
    content = read_json(path, kind=KIND, schema_version=SCHEMA_VERSION)
    return from_json(TritonManifest, content, source=path)
