"""Figures of the drivers: modalities, speakers, and shap's own plots of features."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from toolkit.explain import ShareRecord, Totals, centre
from toolkit.explain.shares import Attribution, Sample
from toolkit.report.facts import StudyFacts, find_game, find_shares, name_share, rank_shares
from toolkit.report.figures import (
    BLUE,
    COLORS,
    GREY,
    PAGE_WIDTH,
    VERMILION,
    draw_grid,
    figure_style,
    name_rows,
    set_texts,
    shorten,
)
from toolkit.validation import Predictions

_N_FEATURES: Final = 10
_CLASS_COLORS: Final = (*COLORS, "#E69F00", "#000000", "#9A9A9A")
_TREES: Final = "#C9C9C9"
_MOST_ROWS: Final = 300
#: Surprising utterances with a waterfall.
N_WATERFALLS: Final = 3
#: Most speakers in one figure.
_MOST_SPEAKERS: Final = 40


def surprising_rows(predictions: Predictions, totals: Totals, n: int) -> list[int]:
    """Find the n explained utterances whose true class got the lowest probability."""
    of_truth = predictions.proba[np.arange(len(predictions)), predictions.labels]
    order = np.argsort(of_truth, kind="stable")
    explained: list[bool] = np.any(totals.trained, axis=1).tolist()
    return [row for row in order.tolist() if explained[row]][:n]


def _largest(sample: Sample, codes: Iterable[int]) -> Sample:
    """Keep the features with the largest mean magnitudes for some classes."""
    sizes = np.abs(sample.contributions[:, list(codes), :-1]).mean(axis=0).sum(axis=0)
    kept = np.sort(np.argsort(-sizes, kind="stable")[:_N_FEATURES])
    return replace(
        sample,
        names=tuple(sample.names[k] for k in kept.tolist()),
        contributions=sample.contributions[:, :, kept],
        values=sample.values[:, kept],
    )


def _largest_of_row(sample: Sample, row: int, code: int) -> Sample:
    """Keep one row and its features with the largest contributions; sum up all others."""
    sizes = np.abs(sample.contributions[row, code, :-1])
    kept = np.sort(np.argsort(-sizes, kind="stable")[: _N_FEATURES - 1])
    shown = sample.contributions[[row]][:, :, kept]
    rest = sample.contributions[[row]].sum(axis=2) - shown.sum(axis=2)
    return replace(
        sample,
        names=(*(sample.names[k] for k in kept.tolist()), sample.names[-1]),
        contributions=np.concatenate([shown, rest[:, :, np.newaxis]], axis=2),
        values=np.append(sample.values[[row]][:, kept], [[np.nan]], axis=1),
        base=sample.base[[row]],
    )


def _make_explanation(
    sample: Sample, code: int, rows: Sequence[int] | slice = slice(None)
) -> Any:
    """Convert a sample to the form that every plot of shap takes."""
    return _load_shap().Explanation(
        values=sample.contributions[rows, code],
        base_values=sample.base[rows, code],
        data=sample.values[rows],
        feature_names=list(sample.names),
    )


def _load_shap() -> Any:
    """Import shap where it draws: the import takes a second."""
    with warnings.catch_warnings():
        # shap calls deprecated functions of matplotlib.
        warnings.simplefilter("ignore")
        import shap  # noqa: PLC0415
    return shap


@contextmanager
def _shap_figure(width: float, height: float) -> Iterator[Figure]:
    """Make a current figure for shap; seed numpy's global state and restore it."""
    state = np.random.get_state()  # noqa: NPY002  (shap draws from numpy's global state)
    np.random.seed(0)  # noqa: NPY002
    with figure_style(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = plt.figure(figsize=(width, height))
        try:
            yield figure
        finally:
            np.random.set_state(state)  # noqa: NPY002
            # Else pyplot keeps every figure alive until the process ends.
            plt.close(figure)


def _polish(figure: Figure, width: float, height: float) -> None:
    """Set the report's fonts and size; rasterise clouds of points, which make large SVGs."""
    figure.set_size_inches(width, height)
    for ax in figure.axes:
        for text in [*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts]:
            text.set_fontsize(min(text.get_fontsize(), 7))
        ax.xaxis.label.set_fontsize(7)
        ax.yaxis.label.set_fontsize(7)
        for collection in ax.collections:
            collection.set_rasterized(True)
    figure.set_layout_engine("tight")


def _plot_beeswarm(sample: Sample, code: int, *, title: str) -> Axes:
    """Draw every utterance's contributions to one class: shap's beeswarm."""
    explanation = _make_explanation(_largest(sample, [code]), code)
    n = explanation.values.shape[1]
    with _shap_figure(PAGE_WIDTH * 0.6, 0.3 * n + 0.9) as figure:
        _load_shap().plots.beeswarm(explanation, max_display=n, show=False, plot_size=None)
        figure.axes[0].set_title(title, fontsize=8, parse_math=False)
        _polish(figure, PAGE_WIDTH * 0.6, 0.28 * n + 0.9)
        return figure.axes[0]


def _plot_heatmap(sample: Sample, code: int, *, title: str) -> Axes:
    """Draw utterances side by side, ordered by similarity: shap's heatmap."""
    n_rows = len(sample.contributions)
    rows = np.unique(np.linspace(0, n_rows - 1, min(n_rows, _MOST_ROWS)).astype(int)).tolist()
    explanation = _make_explanation(_largest(sample, [code]), code, rows)
    n = explanation.values.shape[1]
    with _shap_figure(PAGE_WIDTH * 0.7, 0.3 * n + 1.2) as figure:
        _load_shap().plots.heatmap(
            explanation, max_display=n, show=False, ax=figure.add_subplot()
        )
        figure.axes[0].set_title(title, fontsize=8, parse_math=False)
        ax = figure.axes[0]
        # shap names f(x) what is the sum of the features shown here.
        names = [
            "sum" if "f(x)" in (t := label.get_text()) else t for label in ax.get_yticklabels()
        ]
        ax.set_yticks(ax.get_yticks(), names)
        for each in figure.axes:
            each.set_aspect("auto")
        _polish(figure, PAGE_WIDTH * 0.7, 0.22 * n + 1.2)
        return ax


def _plot_waterfall(sample: Sample, row: int, code: int, *, title: str) -> Axes:
    """Draw the contributions to one margin of one utterance: shap's waterfall."""
    explanation = _make_explanation(_largest_of_row(sample, row, code), code)[0]
    n = len(explanation.values)
    with _shap_figure(PAGE_WIDTH * 0.6, 0.32 * n + 1) as figure:
        _load_shap().plots.waterfall(explanation, max_display=n, show=False)
        ax = figure.axes[0]
        labels = [label.get_text() for label in ax.get_yticklabels()]
        ax.set_yticks(ax.get_yticks(), [label.removeprefix("nan = ") for label in labels])
        # Name and number of a margin are separate ticks, which drift apart in other fonts.
        for twin in figure.axes[1:]:
            words = [label.get_text().strip("\n$ ") for label in twin.get_xticklabels()]
            below = "\n" if "E[" in words[0] else ""
            twin.set_xticks(twin.get_xticks()[:1], [f"{below}${words[0]} {words[1]}$"])
        ax.set_title(title, fontsize=8, parse_math=False)
        _polish(figure, PAGE_WIDTH * 0.6, 0.3 * n + 1)
        _move_numbers_out(ax)
        return ax


def _move_numbers_out(ax: Axes) -> None:
    """Put numbers beside bars too narrow for them; shap placed them for a larger figure."""
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    for text in ax.texts:
        if to_hex(text.get_color()) != "#ffffff":
            continue
        words = text.get_window_extent()
        middle = ((words.x0 + words.x1) / 2, (words.y0 + words.y1) / 2)
        for bar in ax.patches:
            box = bar.get_window_extent()
            if box.contains(*middle) and box.width < words.width + 4:
                rises = text.get_text().startswith("+")
                end = box.x1 + 2 if rises else box.x0 - 2
                text.set_x(ax.transData.inverted().transform((end, 0))[0])
                text.set_horizontalalignment("left" if rises else "right")
                text.set_color(bar.get_facecolor())


def _plot_bar(sample: Sample, classes: Sequence[str], *, title: str) -> Axes:
    """Draw the mean magnitude of every class's contributions: shap's bar plot by class."""
    largest = _largest(sample, range(len(classes)))
    n = len(largest.names)
    if len(classes) > len(_CLASS_COLORS):  # no more bars per feature than distinct colours
        sizes = np.abs(largest.contributions).mean(axis=1, keepdims=True)
        names = ["mean of all classes"]
        cohorts = {"0": _make_explanation(replace(largest, contributions=sizes), 0)}
    else:
        names = [shorten(name) for name in classes]
        cohorts = {str(code): _make_explanation(largest, code) for code in range(len(classes))}
    height = max(0.3, 0.08 * len(cohorts)) * n + 0.15 * len(cohorts) / 2 + 1.1
    with _shap_figure(PAGE_WIDTH * 0.6, height) as figure:
        ax = figure.add_subplot()
        _load_shap().plots.bar(cohorts, max_display=n, show=False, ax=ax)
        for bars, color in zip(ax.containers, _CLASS_COLORS, strict=False):
            for bar in bars:
                bar.set(facecolor=color, hatch="", edgecolor="none")
        for text in ax.texts:
            text.set_visible(len(cohorts) == 1)
            text.set_color("black")
        # Above the axes, where no bar can be: it widens over the names of the features.
        legend = ax.legend(
            [bars[0] for bars in ax.containers],
            list(cohorts),
            title=" ",
            ncols=3 if max(map(len, names)) <= 12 else 2,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            fontsize=7,
            title_fontsize=8,
            frameon=False,
        )
        set_texts(legend, names)
        legend.get_title().set(text=title, parse_math=False)
        _polish(figure, PAGE_WIDTH * 0.6, height)
        return figure.axes[0]


def _plot_modalities(facts: StudyFacts, attribution: Attribution) -> Axes:
    """Draw value, share and loss of every modality side by side."""
    names = list(attribution.modalities)
    lost = {r.modality: r for r in attribution.importance if not r.class_name}
    shares = find_shares(attribution, "modality")
    scale = 1 if facts.metric.direction == "minimize" else 100
    unit = "" if scale == 1 else ", points"
    with figure_style():
        figure = Figure(figsize=(PAGE_WIDTH, 0.3 * len(names) + 0.8), layout="constrained")
        axes: list[Axes] = figure.subplots(1, 3, sharey=True).tolist()
        for row, name in enumerate(names):
            value, share = find_game(attribution, "value", name), shares.get((name, ""))
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
            draw_grid(ax, "x")
        name_rows(axes[0], names)
    return axes[0]


def _mark(  # noqa: PLR0917
    ax: Axes, row: int, value: float, low: float | None, high: float | None, scale: int
) -> None:
    if low is not None and high is not None:
        ax.plot([scale * low, scale * high], [row, row], color=BLUE, lw=1.4)
    ax.plot(scale * value, row, "o", color=BLUE, ms=4)


def drawn_speakers(
    facts: StudyFacts, attribution: Attribution
) -> tuple[list[str], list[ShareRecord]]:
    """Pick the speakers and the modalities, or families, of the figure of speakers."""
    speakers = facts.tested_speakers
    n = min(len(speakers), _MOST_SPEAKERS)
    picked = np.unique(np.linspace(0, len(speakers) - 1, n).astype(int)).tolist()
    shown = [speakers[index] for index in picked]
    if len(attribution.modalities) > 1:
        return shown, list(find_shares(attribution, "modality").values())
    return shown, rank_shares(attribution, "family")[:3]


def _plot_speakers(facts: StudyFacts, attribution: Attribution) -> Axes:
    """Draw share and mean contribution toward the true class, one row per speaker."""
    speakers, parts = drawn_speakers(facts, attribution)
    with figure_style():
        height = 0.17 * len(speakers) + 1
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        axes: list[Axes] = figure.subplots(1, 2, sharey=True).tolist()
        found = [find_shares(attribution, parts[0].level, speaker=name) for name in speakers]
        for part, color, marker in zip(parts, COLORS, "os^Dv", strict=False):
            key = (part.modality, part.part)
            rows = [row for row, shares in enumerate(found) if key in shares]
            records = [found[row][key] for row in rows]
            label = shorten(name_share(part))
            style: dict[str, Any] = {"color": color, "marker": marker, "ms": 3.5, "ls": "none"}
            axes[0].plot([r.share for r in records], rows, label=label, **style)
            axes[1].plot([r.toward_truth for r in records], rows, **style)
        axes[0].set_xlabel("share")
        axes[1].set_xlabel("toward the true class, mean margin")
        axes[0].set_xlim(left=0)
        axes[1].axvline(0, color=GREY, lw=0.7, ls="--", zorder=0)
        for ax in axes:
            draw_grid(ax)
        name_rows(axes[0], speakers, 7)
        figure.legend(loc="outside upper center", ncols=len(parts), frameon=False, fontsize=7)
    return axes[0]


def _plot_linear(attribution: Attribution) -> Axes:
    """Draw the linear part's share of the contributions beside that of the trees."""
    found = [r for r in attribution.linear if r.system == attribution.system and r.modality]
    with figure_style():
        size = (PAGE_WIDTH * 0.6, 0.28 * len(found) + 0.75)
        ax: Axes = Figure(figsize=size, layout="constrained").subplots()
        rows, shares = np.arange(len(found)), np.array([r.share for r in found])
        bars = [
            ax.barh(rows, shares, 0.6, color=BLUE),
            ax.barh(rows, 1 - shares, 0.6, left=shares, color=_TREES),
        ]
        for row, r in enumerate(found):
            if r.low is not None and r.high is not None:
                ax.plot([r.low, r.high], [row, row], color="black", lw=1)
        name_rows(ax, [r.modality for r in found])
        ax.tick_params(axis="y", length=0)
        ax.set_xlim(0, 1)
        ax.set_xlabel("share of contributions")
        set_texts(
            ax.legend(
                bars, ["", ""], loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=7
            ),
            ["linear part", "trees"],
        )
    return ax


def draw_drivers(facts: StudyFacts) -> Iterator[tuple[str, Axes]]:
    """Draw the figures of the section on drivers one by one."""
    attribution = facts.attribution
    if attribution is None:
        return
    if len(attribution.modalities) > 1:
        yield "modalities", _plot_modalities(facts, attribution)
    if any(r.system == attribution.system for r in attribution.linear):
        yield "linear", _plot_linear(attribution)
    if facts.tested_speakers and find_shares(attribution, "family"):
        yield "driving-people", _plot_speakers(facts, attribution)
    for system, raw in attribution.samples.items():
        trained = attribution.totals[system].trained
        # Margins are defined up to a shift of all classes, which carries no information.
        sample = replace(
            raw,
            contributions=centre(raw.contributions, trained),
            base=centre(raw.base, trained),
        )
        if len(sample.names) < 2:  # every tree is a single leaf
            continue
        end = "" if system == attribution.system else f"-{system}"
        yield f"shap-bar{end}", _plot_bar(sample, facts.classes, title=system)
        if system != attribution.system:
            continue
        predictions = facts.predictions[system]
        for code in facts.drawn_classes:
            title = f"{system}: {shorten(facts.classes[code])}"
            yield f"shap-beeswarm-{code}", _plot_beeswarm(sample, code, title=title)
            yield f"shap-heatmap-{code}", _plot_heatmap(sample, code, title=title)
        rows = surprising_rows(predictions, attribution.totals[system], N_WATERFALLS)
        for k, row in enumerate(rows):
            code = int(predictions.y_pred[row])
            utterance = shorten(str(predictions.utterances[row]), 40)
            true = facts.classes[int(predictions.labels[row])]
            title = (
                f"{utterance}: predicted {shorten(facts.classes[code])} (true {shorten(true)})"
            )
            yield f"shap-waterfall-{k}", _plot_waterfall(sample, row, code, title=title)
