"""What benchmarks/runtime.py has measured so far: runtime.json."""

import argparse
import json
from typing import Any

from pipeline import native
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.manifest import to_json
from pipeline.environment import package_versions
from pipeline.errors import ConfigurationError, MachineError
from pipeline.machine import describe_machine

PACKAGES = ("smp-pipeline", "onnx", "onnxruntime", "torch", "transformers")


def library_sha256() -> str | None:
    """Hash of the native library; None where it was not built."""
    try:
        return sha256_file(native.library_path())
    except MachineError:
        return None


class Results:
    """What was measured so far, on disk after every step."""

    def __init__(self, arguments: argparse.Namespace, left_out: list[str]) -> None:
        self._path = arguments.work_dir / "runtime.json"
        machine = to_json(describe_machine())
        versions = package_versions(PACKAGES)
        self.content: dict[str, Any] = {
            "machine": machine,
            "versions": versions,
            "library_sha256": library_sha256(),
            "seconds_per_cell": arguments.seconds_per_cell,
            "left_out": left_out,
            "parts": {},
        }
        if arguments.resume and self._path.is_file():
            earlier = json.loads(self._path.read_text(encoding="utf-8"))
            same = {key: machine[key] for key in ("cpu", "instruction_sets", "usable_cores")}
            if any(earlier["machine"][key] != value for key, value in same.items()):
                raise ConfigurationError(
                    f"{self._path} was measured on another machine; measure without --resume, or "
                    "in another --work-dir"
                )
            if earlier["library_sha256"] != self.content["library_sha256"]:
                raise ConfigurationError(
                    f"{self._path} was measured with another build of the native library; measure "
                    "without --resume"
                )
            self.content["parts"] = earlier["parts"]
            self.content["versions"] = {**earlier["versions"], **versions}

    def save(self) -> None:
        """Write them."""
        part = self._path.with_name("part-runtime.json")
        part.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        part.replace(self._path)
