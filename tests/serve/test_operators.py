import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline import native
from pipeline.artifacts.benchmark import MatrixPlan
from pipeline.artifacts.exported import MANIFEST_FILE, MODEL_FILE
from pipeline.artifacts.files import sha256_file
from pipeline.errors import ArtifactError, ConfigurationError, MachineError
from serve import open_session
from serve.operators import RUNS, measure_operators

MakeModel = Callable[..., Path]
WriteBlob = Callable[..., bytes]


def make_engine_model(make_model: MakeModel, directory: Path, blob: bytes) -> Path:
    """The word counter with one operator of ours behind it: blob holds a 2 x 2 matrix."""
    make_model(directory, format="engine")
    path = directory / MODEL_FILE
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "counts"
    model.opset_import.append(onnx.helper.make_opsetid("smp", 1))
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.frombuffer(blob, np.uint8), "weights")
    )
    model.graph.node.append(
        onnx.helper.make_node(
            "SmpLinear",
            ["counts", "weights"],
            ["logits"],
            name="head",
            domain="smp",
            in_features=2,
            out_features=2,
            activation="none",
            compute="fp32",
            epsilon=1e-12,
        )
    )
    onnx.save(model, path)
    manifest = json.loads((directory / MANIFEST_FILE).read_text())
    manifest["model_sha256"] = sha256_file(path)
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest))
    return directory


@pytest.fixture
def engine_model(
    make_model: MakeModel, write_blob: WriteBlob, native_library: Path, tmp_path: Path
) -> Path:
    swapped = np.array([[0, 2], [0, 0]], dtype=np.float32)
    return make_engine_model(make_model, tmp_path / "engine", write_blob(swapped))


def test_an_engine_model_opens_and_runs(engine_model: Path) -> None:
    session = open_session(engine_model, threads=1)
    np.testing.assert_array_equal(session.logits(["good film", "bad"]), [[2, 0], [-2, 0]])


def test_the_plan_and_the_time_of_our_operators(engine_model: Path) -> None:
    session = open_session(engine_model, threads=1)
    profile = measure_operators(session, batch_size=1, sequence_length=8)
    assert profile.isa == native.isa()
    (plan,) = profile.plan
    assert plan == MatrixPlan("head", plan.kernel, 0.25)
    assert {"SmpLinear": 1.0}.items() <= {e.operator: e.calls for e in profile.operators}.items()


def test_corrupt_weights_are_one_line(
    make_model: MakeModel, native_library: Path, tmp_path: Path
) -> None:
    directory = make_engine_model(make_model, tmp_path / "model", b"SMPW but no more")
    with pytest.raises(ArtifactError, match="cannot load it") as caught:
        open_session(directory)
    assert "\n" not in str(caught.value)


def test_an_instruction_set_that_cannot_be_had_is_one_line(
    engine_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(engine_model, threads=1)
    monkeypatch.setenv(native.ISA_VARIABLE, "altivec")
    with pytest.raises(ConfigurationError, match="SMP_ENGINE_ISA asks for altivec, which is"):
        open_session(engine_model)
    with pytest.raises(MachineError, match="SMP_ENGINE_ISA asks for altivec"):
        measure_operators(session, batch_size=1, sequence_length=8)


def test_the_operators_of_a_model_and_their_calls_a_run(
    make_model: MakeModel, tmp_path: Path
) -> None:
    session = open_session(make_model(tmp_path / "model"), threads=1)
    profile = measure_operators(session, batch_size=2, sequence_length=8)
    assert (profile.batch_size, profile.sequence_length, profile.runs) == (2, 8, RUNS)
    calls = {entry.operator: entry.calls for entry in profile.operators}
    assert calls["Gather"] in (2.0, 3.0)  # ONNX Runtime makes a slice of one of them
    assert calls["ReduceSum"] == 1.0
    times = [entry.ms for entry in profile.operators]
    assert times == sorted(times, reverse=True)
    assert times[0] > 0
    assert (profile.isa, profile.plan, profile.stages_ms) == (None, (), {})


def test_a_failing_process_is_one_line(make_model: MakeModel, tmp_path: Path) -> None:
    session = open_session(make_model(tmp_path / "model", positions=8), threads=1)
    with pytest.raises(MachineError, match=r"time by operator failed: .*1 texts of 9 tokens"):
        measure_operators(session, batch_size=1, sequence_length=9)
