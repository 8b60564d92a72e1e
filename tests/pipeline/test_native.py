import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from pipeline import native
from pipeline.errors import ConfigurationError, MachineError


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation of its own, in which there is no library yet."""
    monkeypatch.setattr(native, "_SERVE", tmp_path)
    native._load.cache_clear()
    yield tmp_path
    native._load.cache_clear()


def test_a_missing_library_says_how_to_get_it(elsewhere: Path) -> None:
    message = (
        r"libsmp_engine\.\w+ is missing: no C\+\+17 compiler .*: pip install --force-reinstall"
    )
    with pytest.raises(MachineError, match=message):
        native.library_path()
    with pytest.raises(MachineError, match=message):
        native.register(onnxruntime.SessionOptions())


def test_in_a_checkout_make_builds_it(elsewhere: Path) -> None:
    (elsewhere / "kernels").mkdir()
    (elsewhere / "kernels" / "CMakeLists.txt").write_text("")
    with pytest.raises(MachineError, match=r"is missing: .*: make native$"):
        native.library_path()


def test_a_damaged_library_is_one_line(elsewhere: Path) -> None:
    (elsewhere / native._FILE).write_bytes(b"no library at all")
    with pytest.raises(MachineError, match=r"cannot be loaded .*; build it again: pip") as caught:
        native.isa()
    assert "\n" not in str(caught.value)


def test_the_library_registers_and_reports(native_library: Path) -> None:
    assert native.library_path() == native_library
    assert native.isa() in native.INSTRUCTION_SETS
    native.register(onnxruntime.SessionOptions())
    native.reset_profile()
    assert set(native.report()) == {"isa", "nodes"}


def test_register_is_what_serve_offers() -> None:
    import serve

    assert serve.register is native.register


@pytest.mark.usefixtures("native_library")
def test_an_instruction_set_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.ISA_VARIABLE, "altivec")
    with pytest.raises(
        ConfigurationError, match=r"SMP_ENGINE_ISA asks for altivec, which is unknown; .* scalar"
    ):
        native.register(onnxruntime.SessionOptions())


def test_the_path_and_the_rest_on_the_command_line(
    native_library: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("info", "--native").out == f"{native_library}\n"
    facts = json.loads(command("info", "--native", "--json").out)
    assert facts == {"path": str(native_library), "isa": native.isa(), "version": 1}
    monkeypatch.setenv(native.ISA_VARIABLE, "mmx")
    result = command("info", "--native")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: the environment variable SMP_ENGINE_ISA asks for mmx")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("somewhere", "--native")])
def test_info_takes_one_of_a_path_and_native(command: Callable[..., Any], arguments: Any) -> None:
    result = command("info", *arguments)
    assert result.code == 2
    assert "info takes PATH or --native" in result.err
