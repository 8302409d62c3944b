"""A study's results in Python are those of its files."""

import csv
import shutil

import numpy as np
import pandas as pd
import pytest

from toolkit.study.outcome import StudyResult
from toolkit.study.runner import _rebuild_report

pytestmark = pytest.mark.usefixtures("no_drawings")


@pytest.fixture(scope="module")
def result(hostile_study, undrawn, tmp_path_factory):
    folder = shutil.copytree(hostile_study, tmp_path_factory.mktemp("outcome") / "study")
    with undrawn():
        return _rebuild_report(folder)


def test_tables_hold_what_the_files_hold(result):
    for table, name in ((result.scores, "scores.csv"), (result.comparisons, "comparisons.csv")):
        with (result.folder / name).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert list(table.columns) == list(rows[0])
        assert len(table) == len(rows)
        for column in table.select_dtypes("number").columns:
            written = [float(row[column]) if row[column] else np.nan for row in rows]
            np.testing.assert_array_equal(table[column], written)
        assert table.iloc[-1, 0] == rows[-1][table.columns[0]]


def test_predictions_are_one_table_of_all_systems(result):
    table = result.predictions

    for system, rows in table.groupby("system"):
        found = result.systems[system]
        assert rows["utterance"].tolist() == found.utterances.tolist()
        names = [f"p_{name}" for name in found.classes]
        np.testing.assert_array_equal(rows[names], found.proba)
        right = (rows["label"] == rows["predicted"]).mean()
        assert right == pytest.approx((found.labels == found.y_pred).mean())
    assert set(table["system"]) == {n for n in result.systems if "offset" not in n}


def test_the_short_table_has_score_and_interval_per_system(result):
    table = result.table()

    assert list(table.columns) == ["F1-micro", "F1-macro", "UAR", "Log-loss"]
    scores = result.scores
    (row,) = scores[
        (scores["system"] == "early")
        & (scores["metric"] == "uar")
        & (scores["scope"] == "all")
        & (scores["variant"] == "")
        & scores["method"].str.startswith("speaker jackknife")
    ].itertuples()
    shown = f"{row.value:.3f}"
    if not np.isnan(row.low):
        shown += f" [{row.low:.3f}, {row.high:.3f}]"
    assert table.loc["early", "UAR"] == shown
    assert not any("offset" in name for name in table.index)
    assert result.table(["mcc"]).columns.tolist() == ["MCC"]


def test_a_notebook_shows_table_and_figure(result):
    page = result._repr_html_()

    assert "<td>" in page
    assert str(result.folder / "report.html") in page
    assert repr(result).startswith(f"<StudyResult of {result.folder}: majority")
    drawn = result.plot_scores("uar")
    assert drawn.ax.get_xlabel() == "UAR"
    assert drawn._repr_svg_().startswith("<?xml")


def test_results_of_nothing_are_empty_tables(tmp_path):
    nothing = StudyResult(tmp_path, {}, (), (), ())

    for table in (nothing.scores, nothing.predictions, nothing.comparisons, nothing.table()):
        assert isinstance(table, pd.DataFrame)
        assert table.empty
