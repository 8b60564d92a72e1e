"""A few seconds of everything at once, on a tiny model."""

import pytest

from benchmarks.http_load import Tally
from benchmarks.soak import soak
from benchmarks.soak_actors import Sample
from benchmarks.soak_table import after_warm_up, slope_bytes_per_minute, write_table
from tests.made_up_data import write_reviews


@pytest.fixture(scope="module")
def done(make_model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("soak")
    write_reviews(directory / "reviews.csv", 60, seed=3)
    texts = [line.rpartition(",")[0] for line in (directory / "reviews.csv").open()][1:]
    return soak(
        make_model(directory / "model"),
        texts,
        seconds=5,
        clients=48,
        max_queue=24,
        tolerance=0.0,
        pause_s=0.1,
    )


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_wrong(done):
    for tally, statuses in ((done.steady, {200, 429}), (done.changing, {200, 404, 429, 503})):
        assert tally.wrong == []
        assert [time for time in tally.unanswered if time < done.end] == []
        assert tally.statuses[200] > 0
        # The server answers 503 to what comes while it stops.
        assert set(tally.statuses) <= statuses | {503}
    assert done.exit_code == 0
    assert done.tracebacks == 0


@pytest.mark.slow
def test_only_bad_requests_are_refused_as_bad(done):
    assert set(done.rubbish) <= {400, 413}
    assert done.vanished > 0
    assert {"load: 200", "load: 503", "unload: 200"} == set(done.changes)


@pytest.mark.slow
def test_the_report_has_a_row_a_minute(done, tmp_path):
    write_table(done, {"settings": {"clients": 48}}, tmp_path / "soak.md")
    text = (tmp_path / "soak.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| 1 |")]
    answers = int(row.split("|")[2].replace(",", ""))
    assert 0 < answers <= done.steady.statuses[200]


def test_the_slope_is_that_of_the_line_after_the_warm_up():
    samples = [Sample(float(s), 1000 + 60 * s + (500 if s < 60 else 0), 0.0) for s in range(300)]
    warm = after_warm_up(samples)
    assert len(warm) == 240
    assert slope_bytes_per_minute(warm) == pytest.approx(3600)
    assert slope_bytes_per_minute(samples) < 3600


def test_quantiles_are_of_the_answers_of_their_span():
    tally = Tally(times=[(1.0, 0.5), (2.0, 0.1), (3.0, 0.3), (9.0, 7.0)])
    assert tally.seconds(0.5, until=9.0) == 0.3
    assert tally.seconds(1.0, since=2.0, until=3.0) == 0.1
