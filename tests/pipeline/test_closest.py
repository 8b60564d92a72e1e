"""Suggestions for words that are not known."""

from pipeline.closest import closest


def test_a_slip_finds_its_word_and_another_word_finds_nothing():
    known = ["--density", "--density-steps", "--device"]
    assert closest("--densty", known) == "--density"
    assert closest("--devise", iter(known)) == "--device"
    assert closest("--zzz", known) is None
    assert closest("--density", []) is None
