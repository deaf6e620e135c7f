"""The document, the plot and the raw figures, of results that were made up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import rows
from tests.bench.modes import MODES, QUICK, Mode
from tests.bench.plot import Bar, Panel, draw
from tests.bench.report import cell, document, failures, figures, floor, left_out, missed, verdicts, write_report
from tests.bench.results import Results
from tests.bench.rows import COLD, FLOOR, SERVE, WARM, WORKER
from tests.bench.samples import Sample, summarize

SVG = "{http://www.w3.org/2000/svg}"


def some_results() -> Results:
    results = Results(about={"mode": "quick", "versions": {"3": "3.9.1", "2": "2.20.27"}, "machine": {"processors": 2}})
    for who, values in {COLD: (2.4, 2.5, 2.6), WARM: (0.4, 0.4, 0.4), SERVE: (2.0, 7.0, 9.0)}.items():
        for value in values:
            results.add(3, "adhoc", who, value)
    results.add(3, "adhoc", WORKER, 60.0, whole=False)
    results.add(3, "adhoc", FLOOR, 0.21)
    results.add(3, "adhoc", FLOOR, 0.19)
    results.add(2, "adhoc", COLD, 5.4)
    results.trouble(3, WORKER, "runs without a first line within 60 s")
    results.leave_out("Prefect 3, the moon: too far")
    return results


# --- figures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([Sample(2.4), Sample(2.5), Sample(2.6)], "2.50 (2.40 to 2.60; 3)"),
        ([Sample(2.0), Sample(7.0), Sample(9.0)], "7.00 (2.00 to 9.00; 3) †"),
        ([Sample(3.0)], "3.00 (single)"),
        ([Sample(60.0, whole=False)], "over 60.00 (single)"),
        ([Sample(6.0), Sample(60.0, whole=False)], "over 33.00 (6.00 to 60.00; 2) †"),
        ([], "-"),
    ],
)
def test_a_cell_says_the_figure_its_range_and_how_often(samples: list[Sample], expected: str) -> None:
    assert cell(summarize(samples) if samples else None, rows.ADHOC) == expected


def test_targets_that_are_missed_are_told_by_how_much() -> None:
    results = some_results()
    found = {(one.row.key, one.who): one for one in verdicts(QUICK, results)}
    assert found["adhoc", WARM].is_met
    assert not found["adhoc", COLD].is_met
    assert found["adhoc", COLD].words == "0.50 s (25 %)"
    text = missed(QUICK, results)
    assert text.startswith("1 of 2 targets are met.")
    assert "| runnerd, cold | 2.50 | 2 | 0.50 s (25 %) | not known yet |" in text
    assert "runnerd, warm" not in text


def test_a_figure_that_is_cut_misses_its_target() -> None:
    results = Results()
    results.add(3, "adhoc", WARM, 60.0, whole=False)
    (verdict,) = verdicts(QUICK, results)
    assert not verdict.is_met
    assert verdict.words == "at least 59.50 s (11900 %)"


def test_a_start_before_its_time_is_no_miss_of_the_lateness() -> None:
    results = Results()
    for value in (-3.0, -1.0):
        results.add(3, "late", COLD, value)
    assert [one.is_met for one in verdicts(QUICK, results)] == [True, True]  # the median and the 99th percentile


def test_where_the_server_is_the_limit_the_document_says_so() -> None:
    results = some_results()
    text = floor(QUICK, results)
    assert "| 0.20 (0.19 to 0.21; 2) | 50 % | 8 % |" in text
    assert "is the limit of: run created → first line of user code, default settings (runnerd, warm)." in text
    assert "not reached" in floor(QUICK, Results())


def test_a_table_without_a_figure_says_so() -> None:
    assert figures(Results(), 3, QUICK.timed_rows(3)) == "Not reached.\n"
    assert figures(some_results(), 2, QUICK.timed_rows(2)).splitlines()[0] == "| what | runnerd, cold |"


def test_failures_and_what_is_left_out_are_told() -> None:
    results = some_results()
    assert "| Prefect 3 | prefect worker | runs without a first line within 60 s | 1 |" in failures(results)
    results.absent[WARM] = "this checkout has none"
    text = left_out(QUICK, results)
    assert "- runnerd, warm: this checkout has none\n" in text
    assert "- Prefect 3, the moon: too far\n" in text
    assert "- not in this mode: stubborn cancel: process gone beyond its grace: prefect worker\n" in text
    assert "- no sample: Prefect 3, idle memory, PSS: runnerd, cold\n" in text
    assert "no sample: Prefect 3, idle memory, PSS: runnerd, warm" not in text
    assert "no sample: Prefect 3, run created → first line of user code, default settings: runnerd, cold" not in text


# --- the files ----------------------------------------------------------------------------------------------------


def test_three_files_are_written_and_read_again(tmp_path: Path) -> None:
    results = some_results()
    written = write_report(results, QUICK, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmarks.json", "benchmarks.md", "benchmarks.svg"]
    assert all(path.exists() for path in written)
    raw = json.loads((tmp_path / "benchmarks.json").read_text())
    again = Results.read(raw)
    assert document(QUICK, again) == (tmp_path / "benchmarks.md").read_text()
    assert again.document() == raw


@pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))
def test_tables_have_as_many_cells_in_each_line(mode: Mode) -> None:
    text = document(mode, some_results())
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert len(blocks) >= 4
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_a_document_of_nothing_says_so() -> None:
    assert document(QUICK, Results()).count("Not reached.") == 3


def test_the_mode_and_the_machine_are_said() -> None:
    text = document(QUICK, some_results())
    assert "the mode **quick**" in text
    assert "2 processors" in text
    assert "Prefect 3.9.1 and 2.20.27" in text


def test_a_busy_machine_is_said() -> None:
    results = some_results()
    results.about["load"] = 0.9
    assert "busy" not in document(QUICK, results)
    results.about["load"] = 4.0
    assert "**The machine was busy with other work when this began (load 4.0)" in document(QUICK, results)


# --- the plot -----------------------------------------------------------------------------------------------------


def bars(text: str) -> dict[str, float]:
    found = ElementTree.fromstring(text).iter(f"{SVG}rect")
    return {str(one.get("class")): float(str(one.get("width"))) for one in found if one.get("class") != "ground"}


def test_bars_are_as_long_as_their_figures() -> None:
    panel = Panel(
        "a < b", (Bar(COLD, 2.0, 1.0, 4.0, "2.00"), Bar(SERVE, 8.0, 8.0, 8.0, "8.00"), Bar(WARM, 0.0, 0, 0, "0"))
    )
    text = draw("Title & more", "less is better", [panel])
    widths = bars(text)
    assert widths[SERVE] == pytest.approx(4 * widths[COLD], abs=0.2)
    assert widths[WARM] == 1.0  # nothing is seen as well
    root = ElementTree.fromstring(text)
    assert (root.findtext(f"{SVG}title"), "a < b" in str(root.findtext(f"{SVG}desc"))) == ("Title & more", True)


def test_everything_stays_within_the_picture() -> None:
    figures = (Bar(COLD, 5.0, -2.0, 9.0, "5", target=20.0), Bar(WARM, -3.0, -5.0, -1.0, "-3", target=1.0))
    root = ElementTree.fromstring(draw("t", "n", [Panel("p", figures)] * 3))
    width, height = float(str(root.get("width"))), float(str(root.get("height")))
    for one in root.iter():
        for name in ("x", "x1", "x2"):
            assert 0 <= float(one.get(name, 0)) < width
        for name in ("y", "y1", "y2"):
            assert 0 <= float(one.get(name, 0)) <= height
    targets = [one for one in root.iter(f"{SVG}line") if one.get("class") == "target"]
    assert len(targets) == 6


def test_a_plot_of_nothing_is_a_picture() -> None:
    ElementTree.fromstring(draw("t", "n", []))
    assert Panel("p", (Bar(COLD, 0.0, 0.0, 0.0, "0"),)).most == 1.0


def test_it_is_read_in_light_and_in_dark() -> None:
    text = draw("t", "n", [])
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    for who in (COLD, WARM, SERVE, WORKER, FLOOR, "ground"):
        assert f".{who} {{ fill: #" in light
        assert f".{who} {{ fill: #" in dark
