"""shap's own plots of contributions, in the report's files: the same bytes every time."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from toolkit.report.figures import (
    BLUE,
    GREY,
    PAGE_WIDTH,
    VERMILION,
    figure_style,
    shorten,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from matplotlib.axes import Axes

    from toolkit.explain import Totals
    from toolkit.explain.evidence import Evidence, Sample
    from toolkit.report.facts import StudyFacts
    from toolkit.validation import Predictions

_N_FEATURES: Final = 10
_HIGHEST: Final = 300
N_WATERFALLS: Final = 3
"""Surprising utterances that are drawn."""


def surprising_rows(predictions: Predictions, totals: Totals, n: int) -> list[int]:
    """Find the utterances whose true class was given least.

    Parameters
    ----------
    predictions : Predictions
        The system.
    totals : Totals
        Its contributions, to leave out what no model explains.
    n : int
        How many.

    Returns
    -------
    list of int
        Rows, the most surprising first; ties in the order of the utterances.
    """
    given = predictions.proba[np.arange(len(predictions)), predictions.labels]
    order = np.argsort(given, kind="stable")
    explained: list[bool] = np.any(totals.trained, axis=1).tolist()
    return [row for row in order.tolist() if explained[row]][:n]


def _largest(sample: Sample, codes: Iterable[int]) -> Sample:
    """Keep the features that are largest on average for some classes."""
    sizes = np.abs(sample.contributions[:, list(codes), :-1]).mean(axis=0).sum(axis=0)
    kept = np.sort(np.argsort(-sizes, kind="stable")[:_N_FEATURES])
    return replace(
        sample,
        names=tuple(sample.names[k] for k in kept.tolist()),
        contributions=sample.contributions[:, :, kept],
        values=sample.values[:, kept],
    )


def make_explanation(
    sample: Sample, code: int, rows: Sequence[int] | slice = slice(None)
) -> Any:
    """Put a sample into the form that every plot of shap takes.

    Parameters
    ----------
    sample : Sample
        Contributions of the most important features.
    code : int
        Position of the class whose margin is explained.
    rows : sequence of int or slice
        Which rows; all by default.

    Returns
    -------
    shap.Explanation
        With "all other features" as the last, so that rows add up to their margins.
    """
    return _load_shap().Explanation(
        values=sample.contributions[rows, code],
        base_values=sample.base[rows, code],
        data=sample.values[rows],
        feature_names=list(sample.names),
    )


def _load_shap() -> Any:
    """Load the library, which takes a second: only where it is drawn with."""
    with warnings.catch_warnings():
        # It calls functions of matplotlib that are to go; its own matter.
        warnings.simplefilter("ignore")
        import shap  # noqa: PLC0415
    return shap


@contextmanager
def _shap_figure(width: float, height: float) -> Iterator[Figure]:
    """Let shap draw into a figure of ours; its own random numbers are seeded, and put back."""
    state = np.random.get_state()  # noqa: NPY002  (shap draws from numpy's global state)
    np.random.seed(0)  # noqa: NPY002
    with figure_style(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = plt.figure(figsize=(width, height))
        try:
            yield figure
        finally:
            np.random.set_state(state)  # noqa: NPY002
            # pyplot must not keep it alive, nor show it.
            plt.close(figure)


def _polish(figure: Figure, width: float, height: float) -> None:
    """Bring shap's fonts and sizes to the report's; clouds of points become pixels."""
    figure.set_size_inches(width, height)
    for ax in figure.axes:
        for text in [*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts]:
            text.set_fontsize(min(text.get_fontsize(), 7))
        ax.xaxis.label.set_fontsize(7)
        ax.yaxis.label.set_fontsize(7)
        for collection in ax.collections:
            collection.set_rasterized(True)
    figure.set_layout_engine("tight")


def plot_beeswarm(sample: Sample, code: int, *, title: str) -> Axes:
    """Draw every utterance's contributions to one class: shap's beeswarm.

    Parameters
    ----------
    sample : Sample
        Contributions of the most important features.
    code : int
        Position of the class.
    title : str
        What is written above.

    Returns
    -------
    Axes
        What was drawn on.
    """
    explanation = make_explanation(_largest(sample, [code]), code)
    n = explanation.values.shape[1]
    with _shap_figure(PAGE_WIDTH * 0.6, 0.3 * n + 0.9) as figure:
        _load_shap().plots.beeswarm(explanation, max_display=n, show=False, plot_size=None)
        figure.axes[0].set_title(title, fontsize=8)
        _polish(figure, PAGE_WIDTH * 0.6, 0.28 * n + 0.9)
        return figure.axes[0]


def plot_heatmap(sample: Sample, code: int, *, title: str) -> Axes:
    """Draw utterances side by side, ordered by alikeness: shap's heatmap.

    Parameters
    ----------
    sample : Sample
        Contributions of the most important features; at most 300 utterances, evenly spaced.
    code : int
        Position of the class.
    title : str
        What is written above.

    Returns
    -------
    Axes
        What was drawn on.
    """
    n_rows = len(sample.contributions)
    rows = np.unique(np.linspace(0, n_rows - 1, min(n_rows, _HIGHEST)).astype(int)).tolist()
    explanation = make_explanation(_largest(sample, [code]), code, rows)
    n = explanation.values.shape[1]
    with _shap_figure(PAGE_WIDTH * 0.7, 0.3 * n + 1.2) as figure:
        _load_shap().plots.heatmap(
            explanation, max_display=n, show=False, ax=figure.add_subplot()
        )
        figure.axes[0].set_title(title, fontsize=8)
        _polish(figure, PAGE_WIDTH * 0.7, 0.28 * n + 1.2)
        return figure.axes[0]


def plot_waterfall(sample: Sample, row: int, code: int, *, title: str) -> Axes:
    """Draw how one utterance's margin of one class comes about: shap's waterfall.

    Parameters
    ----------
    sample : Sample
        Contributions of the most important features.
    row : int
        Which utterance.
    code : int
        Position of the class.
    title : str
        What is written above.

    Returns
    -------
    Axes
        What was drawn on.
    """
    explanation = make_explanation(sample, code, [row])[0]
    n = min(_N_FEATURES, len(explanation.values))
    with _shap_figure(PAGE_WIDTH * 0.6, 0.32 * n + 1) as figure:
        _load_shap().plots.waterfall(explanation, max_display=n, show=False)
        ax = figure.axes[0]
        labels = [label.get_text() for label in ax.get_yticklabels()]
        ax.set_yticks(ax.get_yticks(), [label.removeprefix("nan = ") for label in labels])
        figure.axes[0].set_title(title, fontsize=8)
        _polish(figure, PAGE_WIDTH * 0.6, 0.3 * n + 1)
        return figure.axes[0]


def plot_bar(sample: Sample, classes: Sequence[str], *, title: str) -> Axes:
    """Draw mean magnitudes of every class's contributions: shap's bar plot, class by class.

    Parameters
    ----------
    sample : Sample
        Contributions of the most important features.
    classes : sequence of str
        Names of the classes.
    title : str
        What is written above.

    Returns
    -------
    Axes
        What was drawn on.
    """
    largest = _largest(sample, range(len(classes)))
    cohorts = {
        shorten(name): make_explanation(largest, code) for code, name in enumerate(classes)
    }
    n = len(largest.names)
    with _shap_figure(PAGE_WIDTH * 0.6, 0.45 * n + 1) as figure:
        ax = figure.add_subplot()
        _load_shap().plots.bar(cohorts, max_display=n, show=False, ax=ax)
        ax.set_title(title, fontsize=8)
        ax.legend(fontsize=7, frameon=False)
        _polish(figure, PAGE_WIDTH * 0.6, 0.42 * n + 1)
        return figure.axes[0]


def plot_modalities(facts: StudyFacts, evidence: Evidence) -> Axes:
    """Draw three views of every modality side by side.

    Parameters
    ----------
    facts : StudyFacts
        The study.
    evidence : Evidence
        What is known of its modalities.

    Returns
    -------
    Axes
        The first of three.
    """
    from toolkit.report.explaining import find_shares, find_value  # noqa: PLC0415

    names = list(evidence.modalities)
    lost = {r.modality: r for r in evidence.importance if not r.class_name}
    shares = {r.modality: r for r in find_shares(evidence, "modality")}
    scale = 1 if facts.metric.direction == "minimize" else 100
    unit = "" if scale == 1 else ", points"
    with figure_style():
        figure = Figure(figsize=(PAGE_WIDTH, 0.3 * len(names) + 0.8), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True)
        for row, name in enumerate(names):
            value, share = find_value(evidence, name), shares.get(name)
            if value is not None:
                _mark(axes[0], row, value.value, value.low, value.high, scale)
            if share is not None:
                _mark(axes[1], row, share.share, share.low, share.high, 1)
                if share.permuted is not None:
                    axes[1].plot(share.permuted, row, "D", color=VERMILION, ms=3.5, mfc="none")
            if name in lost:
                _mark(axes[2], row, lost[name].value, lost[name].low, lost[name].high, scale)
        titles = (f"Shapley value{unit}", "share", f"loss when shuffled{unit}")
        for ax, title in zip(axes, titles, strict=True):
            ax.axvline(0, color=GREY, lw=0.7, ls="--", zorder=0)
            ax.set_xlabel(title)
            ax.grid(axis="x", lw=0.3, color="#cccccc")
            ax.set_axisbelow(True)
        axes[0].set_yticks(range(len(names)), [shorten(name) for name in names])
        axes[0].set_ylim(len(names) - 0.4, -0.6)
    first: Axes = axes[0]
    return first


def _mark(  # noqa: PLR0917
    ax: Axes, row: int, value: float, low: float | None, high: float | None, scale: int
) -> None:
    if low is not None and high is not None:
        ax.plot([scale * low, scale * high], [row, row], color=BLUE, lw=1.4)
    ax.plot(scale * value, row, "o", color=BLUE, ms=4)


def draw_explanation(facts: StudyFacts) -> Iterator[tuple[str, Axes]]:
    """Draw what the section on modalities refers to, one figure at a time.

    Parameters
    ----------
    facts : StudyFacts
        The study.

    Yields
    ------
    tuple of str and Axes
        The figure's stem and an axes of it.
    """
    evidence = facts.evidence
    if evidence is None:
        return
    if len(evidence.modalities) > 1:
        yield "modalities", plot_modalities(facts, evidence)
    for system, sample in evidence.samples.items():
        if len(sample.names) < 2:  # every tree is a single leaf: nothing to be drawn
            continue
        end = "" if system == evidence.system else f"-{system}"
        yield f"shap-bar{end}", plot_bar(sample, facts.classes, title=system)
        if system != evidence.system:
            continue
        predictions = facts.predictions[system]
        for code, name in enumerate(facts.classes):
            title = f"{system}: {shorten(name)}"
            yield f"shap-beeswarm-{code}", plot_beeswarm(sample, code, title=title)
            yield f"shap-heatmap-{code}", plot_heatmap(sample, code, title=title)
        rows = surprising_rows(predictions, evidence.totals[system], N_WATERFALLS)
        for k, row in enumerate(rows):
            code = int(predictions.decided[row])
            who = shorten(str(predictions.utterances[row]))
            title = f"{who}: why {shorten(facts.classes[code])}"
            yield f"shap-waterfall-{k}", plot_waterfall(sample, row, code, title=title)
