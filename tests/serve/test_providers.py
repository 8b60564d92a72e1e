import importlib.metadata
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from pipeline.errors import ConfigurationError, MachineError
from serve import open_session
from serve.providers import CPU, resolve_provider, select_provider, short_name


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"])
def test_a_provider_has_a_short_and_a_full_name_in_any_case(name: str) -> None:
    assert resolve_provider(onnxruntime, name) == CPU
    assert short_name(name) == "cpu"


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("CUDA", r"'smp-pipeline\[gpu\]'"),
        ("abacus", "the package that has it, onnxruntime-ep-abacus"),
    ],
)
def test_a_provider_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(
        ConfigurationError, match=f"--providers {name}: .* only cpu; install {package}"
    ):
        resolve_provider(onnxruntime, name)


def install_plugin(monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    """A package as ONNX Runtime's guidance for packages with a provider describes it."""
    module = types.ModuleType("onnxruntime_ep_abacus")
    module.get_library_path = lambda: library  # type: ignore[attr-defined]
    module.__spec__ = importlib.util.spec_from_loader("onnxruntime_ep_abacus", loader=None)
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_abacus", module)

    class Distribution:
        name = "onnxruntime_ep-abacus"

    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [Distribution()])


def test_an_installed_plugin_that_cannot_be_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "libabacus.so"
    library.write_bytes(b"no library")
    install_plugin(monkeypatch, library)
    with pytest.raises(MachineError, match="provider of onnxruntime-ep-abacus cannot be") as caught:
        resolve_provider(onnxruntime, "abacus")
    assert "\n" not in str(caught.value)


def test_an_installed_plugin_without_a_device_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_plugin(monkeypatch, tmp_path / "libabacus.so")
    registered: list[str] = []
    monkeypatch.setattr(
        onnxruntime,
        "register_execution_provider_library",
        lambda name, path: registered.append(path),
        raising=False,
    )
    with pytest.raises(MachineError, match="abacus is installed and finds no device"):
        resolve_provider(onnxruntime, "abacus")
    assert registered == [str(tmp_path / "libabacus.so")]


def test_the_cpu_needs_no_more_than_its_name() -> None:
    assert select_provider(onnxruntime, object(), CPU) == [CPU]


class Fallen:
    """A session as ONNX Runtime gives it where a provider could not start."""

    def get_providers(self) -> list[str]:
        return [CPU]


def test_a_provider_that_did_not_start_is_refused(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_model(tmp_path / "model")
    providers = ["CUDAExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: Fallen())
    with pytest.raises(MachineError, match="could not start CUDAExecutionProvider and would have"):
        open_session(directory, provider="cuda")


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="this build of ONNX Runtime has no provider that takes no operator",
)
def test_a_provider_that_takes_no_operator_is_refused(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "model")
    with pytest.raises(MachineError, match=r"takes none of its operators, all would run on cpu"):
        open_session(directory, provider="azure")


def test_operators_of_ours_run_on_the_cpu_alone(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = ["CUDAExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    with pytest.raises(ConfigurationError, match="of the format engine, whose operators run on"):
        open_session(make_model(tmp_path / "model", format="engine"), provider="cuda")


def test_a_session_says_its_provider(make_model: Callable[..., Path], tmp_path: Path) -> None:
    session: Any = open_session(make_model(tmp_path / "model"), provider="cpu")
    assert session.provider == CPU
    np.testing.assert_array_equal(session.logits(["good"]), [[-1, 1]])
