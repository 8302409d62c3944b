"""The figure of one utterance: waterfall by family, curves over time, probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.explain.timeline import UtteranceExplanation
from toolkit.report.figures import (
    GREEN,
    GREY,
    PAGE_WIDTH,
    PURPLE,
    figure_style,
    name_rows,
    set_texts,
    shorten,
)
from toolkit.report.shap_figures import draw_waterfall

_N_BARS = 12
#: Of the predicted and of the true class; the colours of bars show a sign.
_OF_CLASS = (GREEN, PURPLE)


def plot_utterance(
    explanation: UtteranceExplanation,
    classes: Sequence[str],
    *,
    label: int,
    y_pred: int,
    title: str,
) -> Axes:
    """Draw the explanation of one utterance.

    `label` and `y_pred` are codes of the true and of the predicted class. The axes of the
    waterfall is returned; all panels are in its figure. Contributions are to the log-odds of
    the predicted class minus the mean over all classes.
    """
    with figure_style():
        n_curves = len(explanation.curves)
        lines = explanation.constant_terms if n_curves else {}
        heights = [2.6, *[1.1] * n_curves, *[0.6] * len(lines)]
        figure = Figure(figsize=(PAGE_WIDTH, sum(heights) + 0.6), layout="constrained")
        grid = figure.add_gridspec(len(heights), 2, width_ratios=[2, 1], height_ratios=heights)
        waterfall = figure.add_subplot(grid[0, 0])
        _draw_parts(waterfall, explanation, classes, y_pred)
        _draw_proba(figure.add_subplot(grid[0, 1]), explanation, classes, label, y_pred)
        shown = [y_pred] if label == y_pred else [y_pred, label]
        names = [
            f"{shorten(classes[code])} ({'predicted' if code == y_pred else 'true'})"
            for code in shown
        ]
        shared: Axes | None = None
        for row, curve in enumerate(explanation.curves):
            # Modalities have their own rates: frames are not aligned across panels.
            ax = figure.add_subplot(grid[row + 1, :], sharey=shared)
            shared = shared or ax
            centred = curve.contributions - curve.contributions.mean(axis=0)
            for index, code in enumerate(shown):
                # Legends drop labels with an underscore: names are written into it below.
                ax.plot(
                    curve.frames,
                    centred[code],
                    color=_OF_CLASS[index],
                    lw=0.9,
                    label=str(index),
                )
            ax.axhline(0, color=GREY, lw=0.6)
            ax.set_ylabel(curve.modality, fontsize=7)
            legend = ax.legend(fontsize=6, frameon=False, loc="upper right", ncols=2)
            set_texts(legend, names)
            if row == n_curves - 1:
                ax.set_xlabel("frame")
        for row, (modality, phi) in enumerate(lines.items()):
            ax = figure.add_subplot(grid[1 + n_curves + row, :])
            for index, code in enumerate(shown):
                ax.axhline(phi[code] - phi.mean(), color=_OF_CLASS[index], lw=0.9)
            ax.axhline(0, color=GREY, lw=0.6, zorder=0)
            ax.margins(y=0.3)
            ax.set_xticks([])
            ax.set_ylabel(f"{modality},\nno frames", fontsize=7)
        figure.suptitle(title, fontsize=8, parse_math=False)
    return waterfall


def _draw_parts(
    ax: Axes, explanation: UtteranceExplanation, classes: Sequence[str], code: int
) -> None:
    sizes = {key: float(phi[code] - phi.mean()) for key, phi in explanation.parts.items()}
    order = sorted(sizes, key=lambda key: -abs(sizes[key]))
    bars: list[tuple[str, float]] = [
        (" ".join(key), sizes[key]) for key in order[: _N_BARS - 1]
    ]
    rest = [sizes[key] for key in order[_N_BARS - 1 :]]
    if rest:
        bars.append((f"{len(rest)} others", sum(rest)))
    draw_waterfall(ax, bars, float(explanation.base[code] - explanation.base.mean()))
    ax.set_xlabel(
        f"log-odds of {shorten(classes[code])}, minus the mean of all classes",
        parse_math=False,
    )


def _draw_proba(
    ax: Axes, explanation: UtteranceExplanation, classes: Sequence[str], label: int, y_pred: int
) -> None:
    colors = [_OF_CLASS[0] if code == y_pred else "#c3c8cf" for code in range(len(classes))]
    ax.barh(range(len(classes)), explanation.proba, color=colors, height=0.7)
    edge: dict[str, Any] = {"color": "black", "lw": 1.2, "fill": False, "height": 0.7}
    ax.barh(label, explanation.proba[label], **edge)
    name_rows(ax, classes, 7)
    ax.set_xlim(0, max(1.0, float(np.max(explanation.proba))))
    ax.set_xlabel("probability (framed: true class)")
