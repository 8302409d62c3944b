"""Figures of the drivers, with shap's own plots of features, and of one utterance."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from toolkit.explain import ShareRecord, Totals, centre
from toolkit.explain.shares import OTHERS, Attribution, Sample
from toolkit.explain.timeline import UtteranceExplanation
from toolkit.report.facts import (
    StudyFacts,
    find_game,
    find_shares,
    name_feature,
    name_share,
    rank_shares,
    to_gain,
)
from toolkit.report.figures import (
    BLUE,
    COLORS,
    DASHED,
    GREEN,
    GREY,
    PAGE_WIDTH,
    PURPLE,
    VERMILION,
    draw_grid,
    figure_style,
    make_axes,
    name_rows,
    set_texts,
    shorten,
)
from toolkit.validation import Predictions

_N_FEATURES: Final = 10
_CLASS_COLORS: Final = (*COLORS, "#E69F00", "#000000", "#9A9A9A")
_LONGEST_FEATURE: Final = 40
_MOST_ROWS: Final = 300
#: Utterances with a dot per feature: more would hide one another, and take minutes to draw.
_MOST_DOTS: Final = 10_000
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


def _spread(n: int, most: int) -> list[int]:
    """Pick at most so many of n numbers, evenly over their range."""
    picked: list[int] = np.unique(np.linspace(0, n - 1, min(n, most)).astype(int)).tolist()
    return picked


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
        for label in (ax.xaxis.label, ax.yaxis.label):
            label.set_fontsize(7)
        for collection in ax.collections:
            collection.set_rasterized(True)
    figure.set_layout_engine("tight")


def _name_features(facts: StudyFacts, ax: Axes) -> Axes:
    """Replace the names of features in the rows of a plot of shap."""
    labels = [
        name_feature(facts, label.get_text(), _LONGEST_FEATURE - 8)
        for label in ax.get_yticklabels()
    ]
    ax.set_yticks(ax.get_yticks(), labels, parse_math=False)
    return ax


def _plot_beeswarm(sample: Sample, code: int, *, title: str) -> Axes:
    """Draw the utterances' contributions to one class: shap's beeswarm."""
    rows = _spread(n_rows := len(sample.contributions), _MOST_DOTS)
    explanation = _make_explanation(_largest(sample, [code]), code, rows)
    if len(rows) < n_rows:
        title += f"\n{len(rows):,} of {n_rows:,} utterances"
    n = explanation.values.shape[1]
    with _shap_figure(PAGE_WIDTH * 0.6, 0.3 * n + 0.9) as figure:
        _load_shap().plots.beeswarm(explanation, max_display=n, show=False, plot_size=None)
        figure.axes[0].set_title(title, fontsize=8, parse_math=False)
        _polish(figure, PAGE_WIDTH * 0.6, 0.28 * n + 0.9)
        return figure.axes[0]


def _plot_heatmap(sample: Sample, code: int, *, title: str) -> Axes:
    """Draw utterances side by side, ordered by similarity: shap's heatmap."""
    rows = _spread(len(sample.contributions), _MOST_ROWS)
    explanation = _make_explanation(_largest(sample, [code]), code, rows)
    n = explanation.values.shape[1]
    with _shap_figure(PAGE_WIDTH * 0.7, 0.3 * n + 1.2) as figure:
        ax = figure.add_subplot()
        _load_shap().plots.heatmap(explanation, max_display=n, show=False, ax=ax)
        ax.set_title(title, fontsize=8, parse_math=False)
        # shap names f(x) what is the sum of the features shown here.
        names = [
            "sum" if "f(x)" in (t := label.get_text()) else t for label in ax.get_yticklabels()
        ]
        ax.set_yticks(ax.get_yticks(), names)
        for each in figure.axes:
            each.set_aspect("auto")
            each.yaxis.labelpad = 2  # shap's would be on the numbers of a small figure
        _polish(figure, PAGE_WIDTH * 0.7, 0.22 * n + 1.2)
        return ax


def _draw_waterfall(ax: Axes, bars: Sequence[tuple[str, float]], start: float) -> None:
    """Draw bars that lead from a mean to the value of one utterance, one row per bar."""
    position = start
    beside: dict[str, Any] = {"xytext": (2, 0), "textcoords": "offset points", "va": "center"}
    for row, (_, size) in enumerate(bars):
        color = VERMILION if size > 0 else BLUE
        ax.barh(row, size, left=position, color=color, height=0.7)
        end = max(position, position + size)
        ax.annotate(f"{size:+.2f}", (end, row), fontsize=6, **beside)
        position += size
    ax.axvline(start, color=GREY, lw=0.6, ls=":")
    ax.axvline(position, **DASHED)
    names = [name for name, _ in bars]
    ax.set_yticks(range(len(bars)), names, fontsize=6, parse_math=False)
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.use_sticky_edges = False  # bars begin anywhere, and numbers stand beside them
    ax.margins(x=0.12)


@figure_style()
def _plot_waterfall(
    sample: Sample, row: int, code: int, *, names: Sequence[str], title: str
) -> Axes:
    """Draw the SHAP values of one utterance for one class; small ones are joined in a bar."""
    sizes = sample.contributions[row, code]
    order = np.argsort(-np.abs(sizes[:-1]), kind="stable").tolist()[: _N_FEATURES - 1]
    values = [float(sample.values[row, k]) for k in order]
    bars = [
        (names[k] if np.isnan(value) else f"{names[k]} = {value:.3g}", float(sizes[k]))
        for k, value in zip(order, values, strict=True)
    ]
    bars.append((OTHERS, float(sizes.sum() - sizes[order].sum())))
    [ax] = make_axes(PAGE_WIDTH * 0.6, 0.2 * len(bars) + 0.9)
    _draw_waterfall(ax, bars, float(sample.base[row, code]))
    ax.tick_params(labelsize=7)
    ax.set_xlabel("log-odds minus the mean of all classes", fontsize=7)
    ax.figure.suptitle(title, fontsize=7, parse_math=False)
    return ax


def _plot_bar(sample: Sample, classes: Sequence[str], *, title: str) -> Axes:
    """Draw the mean magnitude of every class's contributions: shap's bar plot by class."""
    largest = _largest(sample, range(len(classes)))
    n = len(largest.names)
    names = [shorten(name) for name in classes]
    if len(classes) > len(_CLASS_COLORS):  # no more bars per feature than distinct colours
        sizes = np.abs(largest.contributions).mean(axis=1, keepdims=True)
        names, largest = ["mean of all classes"], replace(largest, contributions=sizes)
    cohorts = {str(code): _make_explanation(largest, code) for code in range(len(names))}
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


#: Kinds of gains, their names, colours, markers and heights within a row.
_GAINS: Final = (
    ("alone", "alone", BLUE, "o", -0.22),
    ("value", "Shapley value", GREEN, "D", 0),
    ("last", "added last", VERMILION, "s", 0.22),
)


@figure_style()
def _plot_gains(facts: StudyFacts, attribution: Attribution) -> Axes:
    """Draw the gain of each modality alone, added last, and its Shapley value."""
    [ax] = make_axes(PAGE_WIDTH * 0.6, 0.42 * len(attribution.compared) + 0.9)
    is_loss = facts.metric.direction == "minimize"
    _draw_gains(ax, attribution, "", points=1 if is_loss else 100)
    ax.set_xlabel(f"gain, {'fall' if is_loss else 'points'} of {facts.metric.title}")
    _label_gains(ax.figure)
    return ax


@figure_style()
def _plot_class_gains(facts: StudyFacts, attribution: Attribution) -> Axes:
    """Draw the gains for each class, one panel per class."""
    n = len(facts.classes)
    n_rows = -(-n // 2)
    height = (0.34 * len(attribution.compared) + 0.45) * n_rows + 0.6
    axes = make_axes(PAGE_WIDTH * 0.6, height, n_rows, 2, sharex=True, sharey=True)
    for ax, name in zip(axes, facts.classes, strict=False):
        _draw_gains(ax, attribution, name, points=100)
        ax.set_title(shorten(name, 26), fontsize=8, parse_math=False)
        ax.xaxis.set_tick_params(labelbottom=True)
    for ax in axes[n:]:
        ax.set_axis_off()
    figure: Any = axes[0].figure
    figure.supxlabel("gain, points of the class's F1", fontsize=8)
    _label_gains(figure)
    return axes[0]


def _draw_gains(ax: Axes, attribution: Attribution, group: str, *, points: int) -> None:
    """Draw one row per modality."""
    for kind, _, color, marker, shift in _GAINS:
        for row, name in enumerate(attribution.compared):
            record = find_game(attribution, kind, name, group=group)
            if record is None:
                continue
            value, *ends = to_gain(record)
            if ends[0] is not None:
                interval = [points * end for end in ends if end is not None]
                ax.plot(interval, [row + shift] * 2, color=color, lw=1.2)
            ax.plot(points * value, row + shift, marker, color=color, ms=4)
    ax.axvline(0, color=GREY, lw=0.7, ls="--", zorder=0)
    draw_grid(ax, "x")
    name_rows(ax, attribution.compared)


def _label_gains(figure: Any) -> None:
    handles = [
        Line2D([], [], color=color, marker=marker, ms=4, lw=1.2)
        for _, _, color, marker, _ in _GAINS
    ]
    names = [name for _, name, *_ in _GAINS]
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": 3}
    figure.legend(handles, names, frameon=False, fontsize=7, **place)


def drawn_speakers(
    facts: StudyFacts, attribution: Attribution
) -> tuple[list[str], list[ShareRecord]]:
    """Pick the speakers and the modalities, or families, of the figure of speakers."""
    speakers = facts.tested_speakers
    shown = [speakers[k] for k in _spread(len(speakers), _MOST_SPEAKERS)]
    if len(attribution.modalities) > 1:
        return shown, list(find_shares(attribution, "modality").values())
    return shown, rank_shares(attribution, "family")[:3]


@figure_style()
def _plot_speakers(facts: StudyFacts, attribution: Attribution) -> Axes:
    """Draw share and mean contribution toward the true class, one row per speaker."""
    speakers, parts = drawn_speakers(facts, attribution)
    left, right = make_axes(PAGE_WIDTH, 0.17 * len(speakers) + 1, columns=2, sharey=True)
    found = [find_shares(attribution, parts[0].level, speaker=name) for name in speakers]
    for part, color, marker in zip(parts, cycle(COLORS), "os^DvPX*", strict=False):
        key = (part.modality, part.part)
        rows = [row for row, shares in enumerate(found) if key in shares]
        records = [found[row][key] for row in rows]
        label = shorten(name_share(part))
        style: dict[str, Any] = {"color": color, "marker": marker, "ms": 3.5, "ls": "none"}
        left.plot([r.share for r in records], rows, label=label, **style)
        right.plot([r.toward_truth for r in records], rows, **style)
    left.set_xlabel("SHAP share")
    right.set_xlabel("mean SHAP value for the true class")
    left.set_xlim(left=0)
    right.axvline(0, color=GREY, lw=0.7, ls="--", zorder=0)
    draw_grid(left)
    draw_grid(right)
    name_rows(left, speakers, 7)
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": min(len(parts), 5)}
    figure: Any = left.figure
    figure.legend(frameon=False, fontsize=7, **place)
    return left


def draw_drivers(facts: StudyFacts) -> Iterator[tuple[str, Axes]]:
    """Draw the figures of the section on drivers one by one."""
    attribution = facts.attribution
    if attribution is None:
        return
    if attribution.games and len(attribution.compared) > 1:
        yield "modalities", _plot_gains(facts, attribution)
        yield "class-gains", _plot_class_gains(facts, attribution)
    if facts.tested_speakers and len(drawn_speakers(facts, attribution)[1]) > 1:
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
        bar = _plot_bar(sample, facts.classes, title=f"Mean |SHAP value|: {system}")
        yield f"shap-bar{end}", _name_features(facts, bar)
        if system != attribution.system:
            continue
        predictions = facts.predictions[system]
        for code in facts.drawn_classes:
            title = f"{system}: {shorten(facts.classes[code])}"
            swarm = _plot_beeswarm(sample, code, title=title)
            yield f"shap-beeswarm-{code}", _name_features(facts, swarm)
            heatmap = _plot_heatmap(sample, code, title=title)
            yield f"shap-heatmap-{code}", _name_features(facts, heatmap)
        rows = surprising_rows(predictions, attribution.totals[system], N_WATERFALLS)
        for k, row in enumerate(rows):
            code = int(predictions.y_pred[row])
            predicted, true = (
                shorten(facts.classes[c], 14) for c in (code, int(predictions.labels[row]))
            )
            utterance = shorten(str(predictions.utterances[row]), 28)
            title = f"{utterance}: predicted {predicted} (true {true})"
            names = [name_feature(facts, name, _LONGEST_FEATURE) for name in sample.names]
            ax = _plot_waterfall(sample, row, code, names=names, title=title)
            yield f"shap-waterfall-{k}", ax


#: Bars of the waterfall of an utterance.
_N_BARS: Final = 12
#: Of the predicted and of the true class; the colours of bars show a sign.
_OF_CLASS: Final = (GREEN, PURPLE)


@figure_style()
def plot_utterance(
    explanation: UtteranceExplanation,
    classes: Sequence[str],
    *,
    label: int,
    y_pred: int,
    title: str,
) -> Axes:
    """Draw one utterance: waterfall by family, probabilities, and curves over time.

    `label` and `y_pred` are codes of the true and of the predicted class. The axes of the
    waterfall is returned; all panels are in its figure. Contributions are to the log-odds of
    the predicted class minus the mean over all classes.
    """
    curves = explanation.curves
    lines = explanation.constant_terms if curves else {}
    heights = [2.6, *[1.1] * len(curves), *[0.6] * len(lines)]
    figure = Figure(figsize=(PAGE_WIDTH, sum(heights) + 0.6), layout="constrained")
    grid = figure.add_gridspec(len(heights), 2, width_ratios=[2, 1], height_ratios=heights)
    waterfall = figure.add_subplot(grid[0, 0])
    _draw_parts(waterfall, explanation, classes[y_pred], y_pred)
    _draw_proba(figure.add_subplot(grid[0, 1]), explanation, classes, label, y_pred)
    shown = dict.fromkeys([y_pred, label])
    names = [
        f"{shorten(classes[code])} ({'predicted' if code == y_pred else 'true'})"
        for code in shown
    ]
    shared: Axes | None = None
    for row, curve in enumerate(curves, start=1):
        # Modalities have their own rates: frames are not aligned across panels.
        ax = figure.add_subplot(grid[row, :], sharey=shared)
        shared = shared or ax
        centred = curve.contributions - curve.contributions.mean(axis=0)
        for code, color in zip(shown, _OF_CLASS, strict=False):
            # Legends drop labels with an underscore: names are written into it below.
            ax.plot(curve.frames, centred[code], color=color, lw=0.9, label=" ")
        ax.axhline(0, color=GREY, lw=0.6)
        ax.set_ylabel(curve.modality, fontsize=7)
        if row == 1:  # above the curves, which may be anywhere
            where: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1)}
            legend = ax.legend(fontsize=6, frameon=False, ncols=2, borderpad=0, **where)
            set_texts(legend, names)
        if row == len(curves):
            ax.set_xlabel("frame")
    for row, (modality, phi) in enumerate(lines.items(), start=1 + len(curves)):
        ax = figure.add_subplot(grid[row, :])
        for code, color in zip(shown, _OF_CLASS, strict=False):
            ax.axhline(phi[code] - phi.mean(), color=color, lw=0.9)
        ax.axhline(0, color=GREY, lw=0.6, zorder=0)
        ax.margins(y=0.3)
        ax.set_xticks([])
        ax.set_ylabel(f"{modality},\nno frames", fontsize=7)
    figure.suptitle(title, fontsize=8, parse_math=False)
    return waterfall


def _draw_parts(ax: Axes, explanation: UtteranceExplanation, name: str, code: int) -> None:
    """Draw the waterfall of one class by modality and family."""
    sizes = {key: float(phi[code] - phi.mean()) for key, phi in explanation.parts.items()}
    order = sorted(sizes, key=lambda key: -abs(sizes[key]))
    bars = [(" ".join(key), sizes[key]) for key in order[: _N_BARS - 1]]
    if rest := [sizes[key] for key in order[_N_BARS - 1 :]]:
        bars.append((f"{len(rest)} others", sum(rest)))
    _draw_waterfall(ax, bars, float(explanation.base[code] - explanation.base.mean()))
    label = f"log-odds of {shorten(name)}, minus the mean of all classes"
    ax.set_xlabel(label, parse_math=False)


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
