import os

import psutil
import pytest

from serve.cpu_use import CpuUse, cores_of_others


def use(clock_s: float, busy_s: float, own_s: float) -> CpuUse:
    return CpuUse(clock_s, busy_s, own_s, cores=4)


def test_what_the_process_did_not_use_others_did() -> None:
    found = cores_of_others(use(100.0, 50.0, 7.0), use(102.0, 56.0, 9.0))
    assert found == pytest.approx(2.0)


def test_rounding_of_the_counters_is_no_negative_use() -> None:
    assert cores_of_others(use(0.0, 0.0, 0.0), use(1.0, 1.0, 1.02)) == 0.0


def test_a_short_time_says_nothing() -> None:
    assert cores_of_others(use(0.0, 0.0, 0.0), use(0.2, 0.4, 0.1)) is None


def test_only_the_cores_of_the_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2}, raising=False)
    times = psutil.cpu_times()
    fields = dict.fromkeys(times._fields, 0.0)

    def cpu_times(percpu: bool) -> list[object]:
        return [
            type(times)(**{**fields, "user": busy, "idle": 1000.0, "system": 1.0})
            for busy in (100.0, 20.0, 3.0)
        ]

    monkeypatch.setattr(psutil, "cpu_times", cpu_times)
    now = CpuUse.now()
    assert now.cores == 2
    assert now.busy_s == 25.0
