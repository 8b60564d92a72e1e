"""What Triton does with a model repository, as far as the tests of the exported one need it.

It reads config.pbtxt with the protocol's own messages, refuses what the configuration does not
allow, runs graphs in ONNX Runtime with the libraries that the configuration names, and models of
the Python backend on a ``triton_python_backend_utils`` of its own.
"""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

Arrays = Mapping[str, NDArray[Any]]

_KINDS = {
    model_config_pb2.TYPE_INT64: np.dtype(np.int64),
    model_config_pb2.TYPE_FP32: np.dtype(np.float32),
    model_config_pb2.TYPE_STRING: np.dtype(np.object_),
}


def read_config(model: Path) -> Any:
    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


class Triton:
    """The models of a repository, each opened when it is first asked.

    Attributes:
        runs: model -> shape of the first input of each of its runs.
    """

    def __init__(self, repository: Path) -> None:
        self.configs = {
            path.name: read_config(path) for path in sorted(repository.iterdir()) if path.is_dir()
        }
        for name, config in self.configs.items():
            assert config.name == name
        self.runs: dict[str, list[tuple[int, ...]]] = {name: [] for name in self.configs}
        self._repository = repository
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._python_models: dict[str, Any] = {}

    def infer(self, name: str, inputs: Arrays) -> Arrays:
        """Answer one request; ValueError has the text of an error that the model gives."""
        (answer,) = self.infer_together(name, [inputs])
        if isinstance(answer, str):
            raise ValueError(answer)
        return answer

    def infer_together(self, name: str, requests: Sequence[Arrays]) -> list[Arrays | str]:
        """Answer requests that were batched; a text is the error that the model gives."""
        config = self.configs[name]
        for inputs in requests:
            self._check(config.input, inputs, config.max_batch_size)
        if config.backend == "onnxruntime":
            return [self._run_graph(name, inputs) for inputs in requests]
        assert config.backend == "python"
        if name not in self._python_models:
            self._python_models[name] = self._load_python_model(name)
        model = self._python_models[name]
        answers: list[Arrays | str] = []
        for response in model.execute([_Request(inputs) for inputs in requests]):
            if response.has_error():
                answers.append(response.error().message())
                continue
            found = {tensor.name(): tensor.as_numpy() for tensor in response.tensors}
            self._check(config.output, found, config.max_batch_size)
            answers.append(found)
        return answers

    def _check(self, declared: Any, tensors: Arrays, largest_batch: int) -> None:
        assert {tensor.name for tensor in declared} == set(tensors)
        rows = {values.shape[0] for values in tensors.values()}
        assert len(rows) == 1
        assert max(rows) <= largest_batch
        for tensor in declared:
            values = tensors[tensor.name]
            assert values.dtype == _KINDS[tensor.data_type]
            assert values.ndim == 1 + len(tensor.dims)
            for dimension, size in zip(tensor.dims, values.shape[1:], strict=True):
                assert dimension in (-1, size)

    def _run_graph(self, name: str, inputs: Arrays) -> Arrays:
        config = self.configs[name]
        if name not in self._sessions:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            for library in config.model_operations.op_library_filename:
                options.register_custom_ops_library(library)
            path = self._repository / name / "1" / "model.onnx"
            self._sessions[name] = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        names = [output.name for output in config.output]
        self.runs[name].append(next(iter(inputs.values())).shape)
        found = dict(zip(names, self._sessions[name].run(names, dict(inputs)), strict=True))
        self._check(config.output, found, config.max_batch_size)
        return found

    def _load_python_model(self, name: str) -> Any:
        utilities = ModuleType("triton_python_backend_utils")
        vars(utilities).update(
            Tensor=_Tensor,
            TritonError=_Error,
            InferenceResponse=_Response,
            InferenceRequest=lambda **arguments: _Call(self, **arguments),
            get_input_tensor_by_name=lambda request, name: request.tensor(name),
            get_output_tensor_by_name=lambda response, name: response.tensor(name),
        )
        path = self._repository / name / "1" / "model.py"
        spec = importlib.util.spec_from_file_location("model", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[utilities.__name__] = utilities
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules[utilities.__name__]
        model = module.TritonPythonModel()
        model.initialize({"model_name": name, "model_version": "1"})
        return model


class _Tensor:
    def __init__(self, name: str, values: NDArray[Any]) -> None:
        assert values.flags.c_contiguous
        self._name, self._values = name, values

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._values


class _Error:
    def __init__(self, message: str) -> None:
        self._message = message

    def message(self) -> str:
        return self._message


class _Request:
    def __init__(self, inputs: Arrays) -> None:
        self._inputs = inputs

    def tensor(self, name: str) -> _Tensor:
        return _Tensor(name, self._inputs[name])


class _Response:
    def __init__(self, output_tensors: Sequence[_Tensor] = (), error: _Error | None = None) -> None:
        self.tensors, self._error = output_tensors, error

    def tensor(self, name: str) -> _Tensor:
        (found,) = (tensor for tensor in self.tensors if tensor.name() == name)
        return found

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> _Error | None:
        return self._error


class _Call:
    """A request of a Python model to another model."""

    def __init__(
        self,
        server: Triton,
        *,
        model_name: str,
        requested_output_names: Sequence[str],
        inputs: Sequence[_Tensor],
    ) -> None:
        self._server, self._model = server, model_name
        self._outputs, self._inputs = requested_output_names, inputs

    def exec(self) -> _Response:
        arrays = {tensor.name(): tensor.as_numpy() for tensor in self._inputs}
        try:
            found = self._server.infer(self._model, arrays)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            return _Response(error=_Error(str(error)))
        return _Response([_Tensor(name, found[name]) for name in self._outputs])
