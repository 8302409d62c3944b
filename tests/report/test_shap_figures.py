"""Pictures of what drives predictions: any name, any number of classes, every modality."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose

from toolkit.explain.shares import OTHERS, LinearRecord, Sample
from toolkit.report.drivers import _linear_parts
from toolkit.report.figures import render_figure
from toolkit.report.shap_figures import (
    _largest_of_row,
    _plot_bar,
    _plot_beeswarm,
    _plot_heatmap,
    _plot_linear,
    _plot_waterfall,
)

NAMES = (
    "_hidden",
    "$\\nosuch$",
    "<b>&",
    "a very long name of a class",
    "a very long name of a",
)


def make_sample(n_classes, n_rows=30):
    rng = np.random.default_rng(0)
    names = (*(f"text__value__{k:04d}" for k in range(4)), OTHERS)
    values = rng.normal(size=(n_rows, 5)).astype(np.float32)
    values[:, -1] = np.nan
    return Sample(
        names, rng.normal(size=(n_rows, n_classes, 5)), values, np.zeros((n_rows, n_classes))
    )


def test_a_bar_a_class_under_its_own_name():
    ax = _plot_bar(make_sample(5), NAMES, title="$\\nosuch$")

    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [
        "_hidden",
        "$\\nosuch$",
        "<b>&",
        "a very long name …",
        "a very long name …",
    ]
    assert len({bars[0].get_facecolor() for bars in ax.containers}) == 5
    assert b"nosuch" in render_figure(ax, "svg")


def test_more_classes_than_colours_are_drawn_as_their_mean():
    sample = make_sample(12)

    ax = _plot_bar(sample, [f"c{k}" for k in range(12)], title="early")

    lengths = sorted(bar.get_width() for bar in ax.containers[0])
    sizes = np.abs(sample.contributions[:, :, :-1]).mean(axis=(0, 1))
    assert len(ax.containers) == 1
    assert_allclose(lengths, np.sort(sizes))


@pytest.mark.parametrize("plot", [_plot_beeswarm, _plot_heatmap])
def test_titles_are_no_formulas(plot):
    assert b"nosuch" in render_figure(plot(make_sample(3), 1, title="$\\nosuch$"), "svg")


def test_numbers_that_do_not_fit_their_bars_stand_beside_them():
    sample = make_sample(2)
    sample.contributions[3, 1] = [0.8, -0.85, 0.7, 0.9, 6.0]

    ax = _plot_waterfall(sample, 3, 1, title="u")

    ax.figure.draw_without_rendering()
    bars = [bar.get_window_extent() for bar in ax.patches]
    inside = [t.get_window_extent() for t in ax.texts if to_hex(t.get_color()) == "#ffffff"]
    assert inside
    for words in inside:
        assert any(
            bar.x0 <= words.x0 and words.x1 <= bar.x1 and bar.y0 <= words.y1 <= bar.y1
            for bar in bars
        )


def test_a_waterfall_has_one_bar_for_all_other_features():
    rng = np.random.default_rng(0)
    names = (*(f"text__value__{k:04d}" for k in range(30)), OTHERS)
    parts = rng.normal(size=(2, 3, 31))
    sample = Sample(names, parts, np.zeros((2, 31), np.float32), np.zeros((2, 3)))

    shown = _largest_of_row(sample, 1, 2)
    labels = [t.get_text() for t in _plot_waterfall(sample, 1, 2, title="u").get_yticklabels()]

    largest = np.argsort(-np.abs(parts[1, 2, :30]))[:9]
    assert {*shown.names} == {*(names[k] for k in largest), OTHERS}
    rest = parts[1, 2].sum() - parts[1, 2, largest].sum()
    assert shown.contributions[0, 2, -1] == pytest.approx(rest)
    assert_allclose(shown.contributions.sum(axis=2), parts[[1]].sum(axis=2))
    assert {label.strip() for label in labels if "other" in label} == {OTHERS}


LINEAR = SimpleNamespace(
    system="early",
    linear=[
        LinearRecord("text", "", 0.9, 0.8, 1.0),
        LinearRecord("early", "", 0.5, 0.4, 0.6),
        LinearRecord("early", "audio", 0.25, 0.15, 0.35),
        LinearRecord("early", "text", 0.75, None, None),
    ],
)


def test_the_linear_share_of_each_modality_is_a_bar_beside_that_of_the_trees():
    ax = _plot_linear(LINEAR)

    linear, trees = ([bar.get_width() for bar in bars] for bars in ax.containers)
    assert linear == [0.25, 0.75]
    assert trees == [0.75, 0.25]
    assert [bar.get_x() for bar in ax.containers[1]] == linear
    assert [list(line.get_xdata()) for line in ax.lines] == [[0.15, 0.35]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["linear part", "trees"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["audio", "text"]


def test_a_line_says_how_much_is_linear():
    paragraph, figure = _linear_parts(LINEAR)

    assert paragraph.text == (
        "Of the contributions in early, a share of 0.500 [0.400, 0.600] is linear; the rest "
        "comes from the trees. By modality: audio 0.250 and text 0.750."
    )
    assert figure.stem == "linear"


def test_trees_alone_have_no_line_on_a_linear_part():
    assert _linear_parts(SimpleNamespace(system="audio", linear=LINEAR.linear)) == []
