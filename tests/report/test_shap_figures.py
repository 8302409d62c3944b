"""Pictures of what drives predictions: any name, any number of classes, every modality."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose

from toolkit.explain.shares import OTHERS, Sample
from toolkit.report.figures import render_figure
from toolkit.report.shap_figures import (
    _plot_bar,
    _plot_beeswarm,
    _plot_heatmap,
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
