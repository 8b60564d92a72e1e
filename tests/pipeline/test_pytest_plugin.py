"""The plugin in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifacts.benchmark import Benchmark, read_benchmark, write_benchmark
from tests.pipeline.gate.edits import edited, size, unusable

pytest_plugins = "pytester"

PLUGIN = "pipeline.pytest_plugin"


@pytest.fixture
def bench(measured: Benchmark, pytester: pytest.Pytester) -> Benchmark:
    """A benchmark in bench.json and baseline.json, and a test that holds one against the other."""
    bench = edited(measured, 1, size(1000))
    for name in ("bench", "baseline"):
        write_benchmark(pytester.path / f"{name}.json", bench)
    write_test(pytester, "bench='bench.json', baseline='baseline.json'")
    return bench


def write_test(pytester: pytest.Pytester, settings: str, body: str = "pass") -> None:
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.smp_gate({settings})
        def test_the_model_is_no_worse():
            {body}

        def test_without_the_marker():
            pass
        """
    )


def run(pytester: pytest.Pytester, *flags: str) -> pytest.RunResult:
    return pytester.runpytest("-p", PLUGIN, "--strict-markers", *flags)


@pytest.mark.usefixtures("bench")
def test_it_passes(pytester: pytest.Pytester) -> None:
    run(pytester).assert_outcomes(passed=2)


@pytest.mark.usefixtures("bench")
def test_it_passes_from_another_directory(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    monkeypatch.chdir(pytester.mkdir("elsewhere"))
    run(pytester, "..").assert_outcomes(passed=2)


def test_a_regression_fails_with_one_line_a_comparison(
    bench: Benchmark, pytester: pytest.Pytester
) -> None:
    write_benchmark(pytester.path / "bench.json", edited(bench, 1, size(1100)))
    result = run(pytester)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["inverted: size in MB went from 0.001 to 0.0011 (1.1 times the baseline's, 1.02 allowed)"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")
    write_test(pytester, "bench='bench.json', baseline='baseline.json', max_size_ratio=1.2")
    run(pytester).assert_outcomes(passed=2)


@pytest.mark.usefixtures("bench")
def test_the_body_may_look_further(pytester: pytest.Pytester) -> None:
    write_test(pytester, "bench='bench.json', baseline='baseline.json'", "assert False, 'further'")
    result = run(pytester)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: further*"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("bench='bench.json', baseline='absent.json'", "*absent.json is missing*"),
        ("bench='bench.json'", "*smp_gate: --baseline is needed*"),
        ("bench='bench.json', baseline='b.json', max_acuracy_drop=1", "*did you mean 'max-accur*"),
        ("'bench.json'", "*smp_gate takes names, as in bench='bench.json'*"),
        ("bench='bench.json', baseline=3", "*smp_gate: baseline must be a path, got 3*"),
        ("bench='bench.json', baseline='b.json', junit='x.xml'", "*smp_gate takes no junit*"),
        ("bench='bench.json', baseline='b.json', confidence=2", "*--confidence must be at least*"),
    ],
)
@pytest.mark.usefixtures("bench")
def test_what_cannot_be_judged_is_an_error(
    pytester: pytest.Pytester, settings: str, message: str
) -> None:
    write_test(pytester, settings)
    result = run(pytester)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([message])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_machine_too_unsteady_to_measure_is_an_error(
    bench: Benchmark, pytester: pytest.Pytester
) -> None:
    write_benchmark(pytester.path / "bench.json", unusable(bench, 0))
    result = run(pytester)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*was not judged: unusable timing in the benchmark (another program ran)"]
    )


def test_update_makes_a_new_baseline(bench: Benchmark, pytester: pytest.Pytester) -> None:
    larger = edited(bench, 1, size(1100))
    write_benchmark(pytester.path / "bench.json", larger)
    run(pytester, "--smp-gate-update").assert_outcomes(passed=2)
    assert read_benchmark(pytester.path / "baseline.json") == larger
    run(pytester).assert_outcomes(passed=2)


@pytest.mark.usefixtures("bench")
def test_a_fixture_may_write_the_benchmark(pytester: pytest.Pytester) -> None:
    (pytester.path / "bench.json").rename(pytester.path / "elsewhere.json")
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def measured(pytestconfig):
            (pytestconfig.rootpath / "elsewhere.json").rename(pytestconfig.rootpath / "bench.json")

        @pytest.mark.smp_gate(bench="bench.json", baseline="baseline.json")
        def test_the_model_is_no_worse(measured):
            pass
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_pytest_starts_without_heavy_imports() -> None:
    heavy = ("numpy", "rich", "torch", "onnxruntime", "typer", "pipeline.config", "pipeline.gate")
    code = f"import sys, {PLUGIN}; print(sorted(set(sys.modules) & set({heavy})))"
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    # What pytest itself imports is not ours to avoid.
    of_pytest = subprocess.run(
        [sys.executable, "-c", code.replace(PLUGIN, "pytest")],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == of_pytest.stdout
