"""ONNX Runtime's execution providers: those it has, and those that installed packages add."""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from pipeline.errors import ConfigurationError, MachineError, first_line

__all__ = ["CPU", "check_used", "resolve_provider", "select_provider", "short_name"]

CPU = "CPUExecutionProvider"

_SUFFIX = "ExecutionProvider"
# How packages with a provider in a library of its own are called, after ONNX Runtime's guidance
# for them: https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/packaging.html
_PLUGIN_PREFIX = "onnxruntime-ep-"
_GPU_PACKAGE = "'smp-pipeline[gpu]' in place of [cpu]"
_PACKAGES = {
    "cuda": _GPU_PACKAGE,
    "tensorrt": _GPU_PACKAGE,
    "coreml": "onnxruntime on macOS",
    "dml": "onnxruntime-directml in place of onnxruntime",
    "nvtensorrtrtx": "onnxruntime-ep-nv-tensorrt-rtx",
    "openvino": "onnxruntime-ep-openvino",
    "qnn": "onnxruntime-qnn in place of onnxruntime",
    "webgpu": "onnxruntime-ep-webgpu",
}


def short_name(provider: str) -> str:
    """``cpu`` for ``CPUExecutionProvider``."""
    return provider.lower().removesuffix(_SUFFIX.lower())


def resolve_provider(onnxruntime: ModuleType, name: str) -> str:
    """The full name of a provider, as ONNX Runtime spells it.

    Args:
        onnxruntime: the module.
        name: the full name, or the short one, in any case.

    Raises:
        ConfigurationError: it is not there.
        MachineError: the library of an installed provider cannot be loaded.
    """
    built_in = onnxruntime.get_available_providers()
    found = _matching(name, built_in)
    if found is not None:
        return found
    packages = _register_plugins(onnxruntime)
    plugins = [device.ep_name for device in _plugin_devices(onnxruntime)]
    found = _matching(name, plugins)
    if found is not None:
        return found
    short = short_name(name)
    there = ", ".join(sorted({short_name(known) for known in (*built_in, *plugins)}))
    for package in packages:
        if short in package.removeprefix(_PLUGIN_PREFIX):
            raise MachineError(
                f"--providers {name}: {package} is installed and finds no device on this machine; "
                f"there are {there}"
            )
    package = _PACKAGES.get(short, f"the package that has it, {_PLUGIN_PREFIX}{short} for instance")
    raise ConfigurationError(
        f"--providers {name}: this ONNX Runtime has no such provider, only {there}; "
        f"install {package}"
    )


def select_provider(onnxruntime: ModuleType, options: Any, provider: str) -> Sequence[str] | None:
    """Prepare a session's options for a provider.

    Args:
        onnxruntime: the module.
        options: ``SessionOptions``.
        provider: a full name of :func:`resolve_provider`.

    Returns:
        The providers to create the session with; None where the options say it.
    """
    if provider == CPU:
        return [CPU]
    # Which provider got which operator: see check_used.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider in onnxruntime.get_available_providers():
        return [provider, CPU]
    _register_plugins(onnxruntime)
    devices = [device for device in _plugin_devices(onnxruntime) if device.ep_name == provider]
    options.add_provider_for_devices(devices[:1], {})
    return None


def check_used(session: Any, provider: str, model: str) -> None:
    """Refuse a session that ONNX Runtime silently runs on the CPU.

    Args:
        session: ``InferenceSession``.
        provider: the full name of the provider that was asked for.
        model: for messages.

    Raises:
        MachineError: the provider did not start, or got no operator of the graph.
    """
    if provider == CPU:
        return
    if provider not in session.get_providers():
        raise MachineError(
            f"{model}: ONNX Runtime could not start {provider} and would have run on "
            f"{', '.join(map(short_name, session.get_providers()))}; install its driver and "
            "libraries, or leave it out of --providers"
        )
    if not hasattr(session, "get_provider_graph_assignment_info"):  # before ONNX Runtime 1.24
        return
    assigned = {part.ep_name for part in session.get_provider_graph_assignment_info()}
    if provider not in assigned:
        raise MachineError(
            f"{model}: {provider} takes none of its operators, all would run on "
            f"{', '.join(sorted(map(short_name, assigned)))}; leave it out of --providers"
        )


def _matching(name: str, providers: Sequence[str]) -> str | None:
    wanted = name.lower()
    return next(
        (known for known in providers if wanted in (known.lower(), short_name(known))), None
    )


def _plugin_devices(onnxruntime: ModuleType) -> list[Any]:
    """Devices of providers in libraries of their own; ONNX Runtime 1.22 knows of none."""
    if not hasattr(onnxruntime, "get_ep_devices"):
        return []
    return list(onnxruntime.get_ep_devices())


def _register_plugins(onnxruntime: ModuleType) -> list[str]:
    """Tell ONNX Runtime of the providers that are packages of their own; gives the packages."""
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        return []
    packages = []
    for distribution in importlib.metadata.distributions():
        package = (distribution.name or "").lower().replace("_", "-")
        module_name = package.replace("-", "_")
        # Some packages of that name only name others.
        if not package.startswith(_PLUGIN_PREFIX) or importlib.util.find_spec(module_name) is None:
            continue
        packages.append(package)
        try:
            library = importlib.import_module(module_name).get_library_path()
            onnxruntime.register_execution_provider_library(package, str(library))
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            if "already registered" in str(error).lower():
                continue
            reason = first_line(error)
            raise MachineError(
                f"the provider of {package} cannot be loaded ({reason}); reinstall or uninstall it"
            ) from error
    return packages
