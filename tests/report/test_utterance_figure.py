"""The figure of one utterance: bars, curves, and lines for modalities without frames."""

import numpy as np
from matplotlib.colors import to_rgb

from toolkit.explain.timeline import UtteranceExplanation, _Curve
from toolkit.report.figures import render_figure
from toolkit.report.shap_figures import plot_utterance

#: Names that a legend would drop, or read as a formula.
NAMES = ("_hidden", "$\\nosuch$", "<b>&")


def test_an_utterance_is_drawn_with_a_line_for_what_has_no_frames():
    rng = np.random.default_rng(1)
    curve = _Curve("audio", np.arange(7), rng.normal(size=(3, 7)))
    text = np.array([0.5, -0.25, -0.5])
    parts = {("audio", "level"): curve.contributions.sum(axis=1), ("text", "value"): text}
    parts["text", "spread"] = -2 * text
    explanation = UtteranceExplanation(
        parts, (curve,), {"text": text}, np.zeros(3), np.array([0.6, 0.3, 0.1])
    )

    ax = plot_utterance(explanation, NAMES, label=1, y_pred=0, title="$\\nosuch$")

    ends = [end for bar in ax.patches for end in (bar.get_x(), bar.get_x() + bar.get_width())]
    assert ax.get_xlim()[0] < min(ends) < max(ends) < ax.get_xlim()[1]
    axes = {each.get_ylabel(): each for each in ax.figure.axes}
    drawn = [line.get_ydata()[0] for line in axes["text,\nno frames"].lines]
    assert drawn[:2] == [text[0] - text.mean(), text[1] - text.mean()]
    legend = [text.get_text() for text in axes["audio"].get_legend().get_texts()]
    assert legend == ["_hidden (predicted)", "$\\nosuch$ (true)"]
    assert b"nosuch" in render_figure(ax, "svg")
    # The sign of a bar and the class of a curve have different colours.
    signs = {bar.get_facecolor()[:3] for bar in ax.patches}
    classes = [to_rgb(line.get_color()) for line in axes["audio"].lines[:2]]
    assert len(signs) == len(set(classes)) == 2
    assert signs.isdisjoint(classes)
    predicted = ax.figure.axes[1].patches[0].get_facecolor()[:3]
    assert predicted == classes[0]
