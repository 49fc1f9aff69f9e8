"""The arithmetic of the report."""

import json

import pytest

from tests.bench import measure
from tests.bench.report import REFERENCE, Results, Spread, cell, number

TITLES = {REFERENCE: "reference", "fast": "Fast one", "absent": "Absent one"}


def results(reference: list[float], fast: list[float], metric: str = "down1") -> Results:
    found = Results(TITLES)
    for name, values in ((REFERENCE, reference), ("fast", fast)):
        for turn, value in enumerate(values):
            found.add("local", turn, name, {metric: value})
    return found


def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    # The machine was busy in the second round: the ratio of the medians would be 0.5.
    found = results([100, 10, 100], [200, 5, 50])

    assert found.ratio("local", "down1", "fast") == Spread(0.5, 0.5, 2.0, 3)
    assert found.absolute("local", "down1", REFERENCE) == Spread(100, 10, 100, 3)


def test_a_round_without_the_reference_does_not_count() -> None:
    found = results([100, 0], [50, 60, 70])

    assert found.ratio("local", "down1", "fast") == Spread(0.5, 0.5, 0.5, 1)


def test_what_was_not_measured_has_no_ratio() -> None:
    found = results([100], [50])

    assert found.ratio("local", "down1", "absent") is None
    assert found.ratio("remote", "down1", "fast") is None
    assert cell(None) == "–"


def test_the_table_shows_who_was_measured_and_which_way_is_better() -> None:
    found = results([100, 100], [150, 170])
    found.add("local", 0, REFERENCE, {"rtt_p50": 80})

    assert found.table("local").splitlines() == [
        "|  | reference = 1 | Fast one |",
        "|---|---|---|",
        "| Download, 1 stream ↑ | 100 MB/s | **1.60** (1.50–1.70) |",
        "| Round trip of 64 bytes, p50 ↓ | 80.0 µs | – |",
    ]


def test_json_has_every_round() -> None:
    found = json.loads(results([100, 50], [150, 100]).json({"rounds": 2}))

    measured = found["kinds"]["local"]["down1"]["fast"]
    assert measured["rounds"] == {"0": 150, "1": 100}
    assert measured["ratio"] == {"median": 1.75, "least": 1.5, "most": 2.0, "rounds": 2}
    assert {"CPU", "system", "SSH", "Python"} <= found["machine"].keys()


def test_a_note_is_told_once() -> None:
    found = results([100], [50])
    found.note("It rained.")
    found.note("It rained.")

    assert found.markdown({}).count("It rained.") == 1


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (0.01234, "0.0123"), (1.5, "1.50"), (28.49, "28.5"), (1234.5, "1234")]
)
def test_figures_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_cpu_time_of_a_process_that_ended_is_left_out() -> None:
    assert measure.spent({1: 5.0, 2: 1.0}, {2: 1.5, 3: 0.25}) == 0.75
