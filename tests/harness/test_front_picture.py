"""The picture of the documentation's first page shows what was measured last."""

import pytest

from benchmarks.folder import read_lines
from benchmarks.report.front_picture import PICTURE, RESULTS, in_words, shares, svg


def test_the_committed_picture_is_of_the_committed_results():
    """After new results: `python -m benchmarks.report.front_picture`."""
    assert f"<desc>{in_words(shares(read_lines(RESULTS)))}</desc>" in PICTURE.read_text(encoding="utf-8")


def test_it_is_drawn_for_light_and_dark_screens_the_same_each_time():
    means = shares(read_lines(RESULTS))
    drawn = svg(means)
    assert drawn == svg(means)
    assert "prefers-color-scheme:dark" in drawn
    assert "var(--default, #" in drawn


def test_results_that_do_not_fit_are_refused():
    lines = read_lines(RESULTS)
    with pytest.raises(ValueError, match=r"expected one mean of .*'memoir'.*got \[\]"):
        shares([line for line in lines if line["method"] != "memoir"])
    with pytest.raises(ValueError, match=r"got \[1.0, 1.0\]"):
        shares(lines + [line for line in lines if line["method"] == "memoir"])
