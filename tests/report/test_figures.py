"""Figures: the numbers of the predictions, the same bytes, hostile names as plain text."""

from dataclasses import replace

import numpy as np
import pytest

from toolkit.report import draw_figures, format_page, render_figure, summarise_study
from toolkit.report.figures import _plot_confusion
from toolkit.validation import Predictions
from toolkit.validation.comparison import compare_families


def make_predictions(classes=("anger", "joy", "calm")):
    labels = np.array([0, 0, 0, 1, 1, 2])
    decided = np.array([0, 0, 1, 1, 1, 0])
    return Predictions(
        system="text",
        classes=tuple(classes),
        utterances=np.array([f"u{i}" for i in range(6)]),
        speakers=np.array(list("aabbcc")),
        sessions=None,
        folds=np.array([0, 0, 1, 1, 2, 2]),
        present=np.ones(6, dtype=bool),
        labels=labels,
        proba=np.eye(3)[decided] * 0.7 + 0.1,
    )


def test_cells_hold_counts_and_shares_of_the_true_class_in_rows():
    ax = _plot_confusion(make_predictions())

    cells = {text.get_position()[::-1]: text.get_text() for text in ax.texts}
    assert [cells[0, column] for column in range(3)] == ["2\n67%", "1\n33%", "0\n0%"]
    assert [cells[2, column] for column in range(3)] == ["1\n100%", "0\n0%", "0\n0%"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("true", "predicted")


@pytest.mark.parametrize(
    ("end", "head"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_the_same_drawing_is_the_same_bytes(end, head):
    one, two = (render_figure(_plot_confusion(make_predictions()), end) for _ in range(2))

    assert one == two
    assert one.startswith(head)
    assert len(one) > 1000


HOSTILE = ("<script>alert(1)</script>", "$\\frac{1}{0}$", "\u0627" * 300)


@pytest.mark.parametrize(("end", "head"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_hostile_names_are_drawn_in_every_format(end, head):
    assert render_figure(_plot_confusion(make_predictions(HOSTILE)), end).startswith(head)


def test_hostile_names_stay_text():
    svg = render_figure(_plot_confusion(make_predictions(HOSTILE)), "svg").decode()

    assert "<script>" not in svg
    assert "&lt;script&gt;" in svg


@pytest.mark.parametrize(
    "kept",
    [(), ("text-logistic",), ("text",), ("text", "text-logistic"), ("audio-logistic", "text")],
    ids="+".join,
)
def test_the_page_of_any_finished_systems_has_its_figures(kept, make_facts):
    facts = make_facts(fused=())
    tables = [facts.predictions[name] for name in ("majority", "no-information", *kept)]
    searched = [name for name in kept if name in facts.searches]
    facts = replace(
        facts,
        predictions={table.system: table for table in tables},
        scores=[score for score in facts.scores if score.system in {t.system for t in tables}],
        comparisons=compare_families(tables, searched, "f1_micro"),
        params={name: facts.params[name] for name in searched},
        searches={name: facts.searches[name] for name in searched},
    )
    drawn = {stem: render_figure(ax, "svg").decode() for stem, ax in draw_figures(facts)}

    page = format_page(summarise_study(facts), drawn)

    # Confusion is counted in tables too, and its figures are files.
    assert page.count("data:image/svg+xml") >= len(drawn) - len(facts.confused)


def test_labels_of_a_study_of_one_system_lie_within_their_figures(make_facts):
    facts = make_facts(fused=())
    tables = [facts.predictions[name] for name in ("majority", "no-information", "text")]
    few = replace(
        facts,
        predictions={table.system: table for table in tables},
        scores=[score for score in facts.scores if score.system in {t.system for t in tables}],
        comparisons=compare_families(tables, ["text"], "f1_micro"),
        params={"text": facts.params["text"]},
        searches={"text": facts.searches["text"]},
    )

    for stem, ax in draw_figures(few):
        whole = ax.figure
        whole.draw_without_rendering()
        for each in whole.axes:
            labels = (each.title, each.xaxis.label, each.yaxis.label)
            for label in filter(lambda text: text.get_text(), labels):
                box = label.get_window_extent()
                assert whole.bbox.x0 <= box.x0, (stem, label.get_text())
                assert box.x1 <= whole.bbox.x1, (stem, label.get_text())
