"""A pytest plugin: a test that fails where a benchmark is worse than its baseline.

    @pytest.mark.smp_gate(bench="bench.json", baseline="baseline.json", max_accuracy_drop=0.5)
    def test_the_model_is_no_worse():
        pass

The marker takes the settings of :class:`pipeline.config.CheckConfig` and `smp-pipeline check`, but
for those of its reports, since pytest has its own.
Paths are relative to pytest's root directory. The files are read after the test's fixtures are set
up, so that a fixture may write them. A regression fails the test before its body; benchmarks that
cannot be held against each other, and latencies that could not be judged, are an error. With
``pytest --smp-gate-update`` the benchmarks become the baselines.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pipeline.config import CheckConfig
    from pipeline.gate import GateResult

__all__: list[str] = []

_MARKER = "smp_gate"
_RESULT: "pytest.StashKey[GateResult]" = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag."""
    parser.getgroup("smp-pipeline").addoption(
        "--smp-gate-update",
        action="store_true",
        help="make the benchmarks of tests marked smp_gate the new baselines",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(bench, baseline, max_accuracy_drop=0.5, ...): fail where a benchmark of "
        "smp-pipeline is worse than its baseline; takes the flags of `smp-pipeline check`",
    )


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Judge, after the fixtures; what cannot be judged is an error of the setup."""
    marker = item.get_closest_marker(_MARKER)
    if marker is None:
        return
    from pipeline.errors import PipelineError
    from pipeline.gate import check

    try:
        config = _config(item, marker)
        result = check(config)
    except PipelineError as error:
        pytest.fail(str(error), pytrace=False)
    if result.verdict == "unmeasured":
        sentences = [judgement.sentence for judgement in result.of_verdict("unmeasured")]
        pytest.fail("\n".join([*sentences, result.summary]), pytrace=False)
    item.stash[_RESULT] = result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail the test for a regression."""
    result = item.stash.get(_RESULT, None)
    if result is not None and not result.passed:
        sentences = [judgement.sentence for judgement in result.of_verdict("failed")]
        pytest.fail("\n".join([*sentences, *result.notes, result.summary]), pytrace=False)


def _config(item: pytest.Item, marker: pytest.Mark) -> "CheckConfig":
    from pipeline.config import CheckConfig
    from pipeline.config.fields import build
    from pipeline.errors import ConfigurationError

    source = f"{item.nodeid}: {_MARKER}"
    if marker.args:
        raise ConfigurationError(f"{source} takes names, as in bench='bench.json'")
    settings: dict[str, Any] = {
        key.replace("_", "-"): value for key, value in marker.kwargs.items()
    }
    for key in ("junit", "github"):
        if key in settings:
            raise ConfigurationError(f"{source} takes no {key}; the report is that of pytest")
    for key in ("bench", "baseline"):
        if isinstance(settings.get(key), str | Path):
            settings[key] = item.config.rootpath / settings[key]
    if item.config.getoption("--smp-gate-update"):
        settings["update"] = True
    return build(CheckConfig, settings, source=source)
