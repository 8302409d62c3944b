"""Figures: paper size, fonts and colours, rendering to fixed bytes, and the plots of scores."""

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from toolkit.report.document import MINUS
from toolkit.report.facts import StudyFacts
from toolkit.systems import MAJORITY, NO_INFORMATION
from toolkit.validation import Predictions, Score
from toolkit.validation.metrics import confusion_matrices, reliability_bins
from toolkit.validation.people import risk_curve

#: Width of a column of a two-column paper, and of both columns, in inches.
_COLUMN_WIDTH: Final = 3.5
PAGE_WIDTH: Final = 7.2

#: Okabe and Ito's colours are distinct for colour-blind readers; yellow is too light on paper.
BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
GREEN: Final = "#009E73"
PURPLE: Final = "#CC79A7"
GREY: Final = "#6B6B6B"
#: Colours of series, the first of them first.
COLORS: Final = (BLUE, VERMILION, GREEN, PURPLE, "#56B4E9")

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # Without these two an SVG holds a random salt and the names of its glyphs' font files.
    "svg.hashsalt": "modality-toolkit",
    "svg.fonttype": "none",
    # Publishers refuse Type 3, the default.
    "pdf.fonttype": 42,
}
#: Shares of a true class, from none to all: as the page's cells (templates/page.css).
SHARES: Final = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#084594"])
#: A line of reference.
DASHED: Final[dict[str, Any]] = {"color": GREY, "lw": 0.8, "ls": "--"}
_LONGEST_NAME: Final = 18
#: Tick labels that are too long to stand side by side.
_TURNED: Final[dict[str, Any]] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the report's style while the block, or the decorated function, runs."""
    with mpl.rc_context(_STYLE):
        yield


def make_axes(
    width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any
) -> list[Axes]:
    """Make the axes of a new figure of this size in inches, row by row."""
    # Not pyplot's: that keeps every figure alive until the process ends.
    figure = Figure(figsize=(width, height), layout="constrained")
    grid: NDArray[Any] = figure.subplots(rows, columns, squeeze=False, **shared)
    return list(grid.flat)


def render_figure(ax: Axes, end: str, *, dpi: int = 300) -> bytes:
    """Render the figure of some axes, the same bytes for the same drawing.

    Parameters
    ----------
    ax : Axes
        Any axes of the figure.
    end : {"svg", "png", "pdf"}
        The format.
    dpi : int, default=300
        Dots per inch of a PNG.

    Returns
    -------
    bytes
        The file's content.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    # Dates, and the version of matplotlib in a PNG, would change the bytes.
    options: dict[str, dict[str, Any]] = {
        # Without a background, so that the page may be dark.
        "svg": {"metadata": {"Date": None}, "transparent": True},
        "png": {"metadata": {"Software": None}, "dpi": dpi},
        "pdf": {"metadata": {"CreationDate": None}},
    }
    content = io.BytesIO()
    with figure_style(), warnings.catch_warnings():
        # Characters that the font lacks are boxes in a PNG; an SVG holds them as text, which
        # readers' own fonts show.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure.savefig(content, format=end, **options[end])
    return content.getvalue()


def draw_grid(ax: Axes, axis: Literal["both", "x", "y"] = "both") -> None:
    """Draw light grid lines below the data."""
    ax.grid(axis=axis, lw=0.3, color="#cccccc")
    ax.set_axisbelow(True)


def set_texts(legend: Legend, names: Sequence[str]) -> None:
    """Write names of the data into a legend as plain text."""
    # Given as labels, names that begin with an underscore vanish and dollars are formulas.
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def shorten(name: str, longest: int = _LONGEST_NAME) -> str:
    """Shorten a name for an axis; tables hold the whole name."""
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "…"


def draw_performance(facts: StudyFacts) -> Iterator[tuple[str, Axes]]:
    """Draw the figures of scores, probabilities, searches and confusion, one at a time."""
    if facts.systems:
        yield "scores", _plot_scores(facts)
        yield "speakers", _plot_speakers(facts)
        drawn = [facts.predictions[name] for name in facts.ranked]
        yield "calibration", _plot_calibration(drawn[:2])
        if drawn[2:]:
            yield "calibration-others", _plot_calibration(drawn[2:])
        if facts.has_curves:
            yield "roc", _plot_ranking(drawn)
    if facts.comparisons:
        yield "comparisons", _plot_comparisons(facts)
    if facts.group_scores:
        yield "groups", _plot_groups(facts)
    if facts.errors:
        yield "abstention", _plot_risk(facts)
    if facts.systems and facts.curve:
        yield "learning-curve", _plot_curve(facts)
    if facts.searches:
        yield "search", _plot_searches(facts)
    for system in facts.confused:
        yield f"confusion-{system}", _plot_confusion(facts.predictions[system])


def draw_matrix(
    ax: Axes,
    shades: NDArray[Any],
    names: Sequence[Sequence[str]],
    texts: Mapping[tuple[int, int], tuple[str, Mapping[str, Any]]],
    *,
    framed: Iterable[tuple[int, int]] = (),
    frame: tuple[float, float] = (0.46, 1),
    **how: Any,
) -> AxesImage:
    """Draw shaded cells with texts, and the names of rows and columns.

    - texts: Text and style of cells, by row and column.
    - frame: Half of the width, and the line width, of frames.
    - how: Colours of the shades and their range.
    """
    for (row, column), (text, style) in texts.items():
        ax.text(column, row, text, ha="center", va="center", **style)
    for row, column in framed:
        x = column + frame[0] * np.array([-1, 1, 1, -1, -1])
        y = row + 0.46 * np.array([-1, -1, 1, 1, -1])
        ax.plot(x, y, color="black", lw=frame[1])
    image = ax.imshow(shades, zorder=-1, **how)
    rows, columns = ([shorten(name) for name in side] for side in names)
    turned = _TURNED if max(map(len, columns)) > 4 else {}
    ax.set_xticks(range(len(columns)), columns, parse_math=False, **turned)
    ax.set_yticks(range(len(rows)), rows, parse_math=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


@figure_style()
def _plot_confusion(predictions: Predictions) -> Axes:
    """Draw a confusion matrix; colour is the share of the true class, cells hold counts."""
    n = len(predictions.classes)
    counts = confusion_matrices(predictions.labels, predictions.y_pred, n)[0]
    n_true = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, n_true, out=np.zeros(counts.shape), where=n_true > 0)
    side = max(_COLUMN_WIDTH, 0.5 * n + 1.3)
    [ax] = make_axes(side, side * 0.9)
    texts = {}
    for cell, count in np.ndenumerate(counts):
        style = {"fontsize": 7, "color": "black" if shares[cell] < 0.75 else "white"}
        texts[cell] = f"{count}\n{shares[cell]:.0%}", style
    names = [predictions.classes] * 2
    image = draw_matrix(ax, shares, names, texts, cmap=SHARES, vmin=0, vmax=1)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title(f"{predictions.system}: utterances, share of true class", fontsize=8)
    assert ax.figure is not None
    ax.figure.colorbar(image, ax=ax, shrink=0.8, format=lambda value, _: f"{value:.0%}")
    return ax


@figure_style()
def _plot_scores(facts: StudyFacts) -> Axes:
    """Draw pooled scores and intervals, a row per system; a dashed line at the baseline."""
    systems = [*facts.systems, *facts.baselines]
    published = [each for each in facts.published if each["metric"] == facts.metric.name]
    [ax] = make_axes(_COLUMN_WIDTH, 0.19 * (len(systems) + len(published)) + 0.75)
    ax.axvline(facts.score(facts.baseline).value, zorder=0, **DASHED)
    for row, system in enumerate(systems):
        color, marker = (GREY, "s") if system in facts.baselines else (BLUE, "o")
        color = GREEN if system in facts.outside else color
        _draw_score(ax, row, facts.score(system), color, marker)
    for row, each in enumerate(published, len(systems)):
        ax.plot([each["value"]] * 2, [-0.6, row], color=VERMILION, lw=0.5, ls=":", zorder=0)
        ax.plot(each["value"], row, "D", color=VERMILION, ms=3.5, mfc="white")
        _write_value(ax, row, each["value"])
    others = [f"{shorten(each['system'], 10)} (publ.)" for each in published]
    name_rows(ax, [*systems, *others])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(facts.metric.title)
    draw_grid(ax, "x")
    return ax


def _draw_score(ax: Axes, row: int, score: Score, color: str = BLUE, marker: str = "o") -> None:
    if score.low is not None and score.high is not None:
        ax.plot([score.low, score.high], [row, row], color=color, lw=1.4)
    ax.plot(score.value, row, marker, color=color, ms=4)
    _write_value(ax, row, score.value)


def _write_value(ax: Axes, row: int, value: float) -> None:
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center_baseline"}
    ax.annotate(f"{value:.3f}", (1.01, row), fontsize=7, **place)


@figure_style()
def _plot_speakers(facts: StudyFacts) -> Axes:
    """Draw the score of every speaker, one row per system."""
    systems = [*facts.systems, MAJORITY, NO_INFORMATION]
    speakers = facts.tested_speakers
    [ax] = make_axes(_COLUMN_WIDTH, 0.2 * len(systems) + 0.75)
    # Points of one score would hide each other; a speaker has one height in every row.
    spread = np.linspace(-0.22, 0.22, len(speakers)) if len(speakers) > 1 else np.zeros(1)
    for row, system in enumerate(systems):
        values = [facts.score(system, scope="speaker", group=s).value for s in speakers]
        ax.plot(values, row + spread, "o", color=BLUE, ms=3, alpha=0.55, mew=0)
        ax.plot([np.mean(values)] * 2, [row - 0.36, row + 0.36], color=VERMILION, lw=1.6)
    name_rows(ax, systems)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"{facts.metric.title} of each speaker")
    draw_grid(ax, "x")
    return ax


@figure_style()
def _plot_groups(facts: StudyFacts) -> Axes:
    """Draw the score of every group of people, and those of its people."""
    score = partial(facts.score, facts.primary)
    people = {n: score(scope="speaker", group=n).value for n in facts.tested_speakers}
    rows = [("everyone", score(), list(people))] + [
        (f"{column}: {group}", score(scope=f"by {column}", group=group), inside)
        for column, groups in facts.groups.items()
        for group, inside in groups.items()
    ]
    [ax] = make_axes(_COLUMN_WIDTH * 1.4, 0.26 * len(rows) + 0.9)
    for row, (_, own, inside) in enumerate(rows):
        values = [people[name] for name in inside]
        ax.plot(values, [row] * len(values), "|", color=GREY, ms=9, alpha=0.7)
        _draw_score(ax, row, own)
    for pick, side in ((min, "left"), (max, "right")):
        name = pick(people, key=lambda name: (people[name], name))
        text = shorten(name, 12)
        ax.text(people[name], -0.35, text, fontsize=6.5, ha=side, parse_math=False)
    name_rows(ax, [name for name, _, _ in rows])
    ax.set_ylim(top=-0.9)
    ax.set_xlabel(facts.metric.title)
    draw_grid(ax, "x")
    return ax


@figure_style()
def _plot_risk(facts: StudyFacts) -> Axes:
    """Draw the error among the most confident utterances by their share."""
    risks = risk_curve(facts.predictions[facts.primary])
    [ax] = make_axes(_COLUMN_WIDTH, 2.2)
    ax.plot(np.arange(1, len(risks) + 1) / len(risks), risks, color=BLUE, lw=1.2)
    for chosen in facts.errors:
        ax.axhline(chosen, color=GREY, lw=0.7, ls="--", zorder=0)
    ax.set(xlim=(0, 1), ylim=(0, None), xlabel="share answered", ylabel="error")
    draw_grid(ax)
    return ax


@figure_style()
def _plot_curve(facts: StudyFacts) -> Axes:
    """Draw the score of the fixed configuration by its number of training speakers."""
    [ax] = make_axes(_COLUMN_WIDTH, 2.2)
    for size, score in facts.curve.items():
        if score.low is not None and score.high is not None:
            ax.plot([size, size], [score.low, score.high], color=BLUE, lw=1.4)
    values = [score.value for score in facts.curve.values()]
    ax.plot(list(facts.curve), values, "o-", color=BLUE, lw=0.9, ms=4)
    ax.axhline(facts.score(facts.baseline).value, zorder=0, **DASHED)
    ax.set_xticks(list(facts.curve))
    ax.set(xlabel="training speakers", ylabel=facts.metric.title)
    draw_grid(ax, "y")
    return ax


@figure_style()
def _plot_calibration(predictions: Sequence[Predictions]) -> Axes:
    """Draw reliability diagrams side by side: the share of right decisions by probability."""
    axes = _make_grid(len(predictions), 2.1, x="probability", y="share of right decisions")
    for ax, each in zip(axes, predictions, strict=True):
        counts, edges = np.histogram(each.proba.max(axis=1), bins=20, range=(0, 1))
        heights = 0.25 * counts / counts.max()
        ax.plot([0, 1], [0, 1], zorder=1, **DASHED)
        ax.bar(edges[:-1], heights, 0.05, align="edge", color="#d0d4da", zorder=0)
        ax.plot(*reliability_bins(each), "o-", color=BLUE, lw=0.9, ms=3.5, clip_on=False)
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        ax.set_title(shorten(each.system), fontsize=8, parse_math=False)
    return axes[0]


@figure_style()
def _plot_ranking(predictions: Sequence[Predictions]) -> Axes:
    """Draw ROC and precision-recall curves of the second of two classes."""
    left, right = make_axes(PAGE_WIDTH * 0.8, 2.9, columns=2)
    lines = []
    for color, each in zip(COLORS, predictions, strict=False):
        positive = each.proba[:, 1]
        false, true, _ = roc_curve(each.labels, positive)
        precision, recall, _ = precision_recall_curve(each.labels, positive)
        lines += left.plot(false, true, color=color, lw=1.1)
        right.plot(recall, precision, color=color, lw=1.1, drawstyle="steps-post")
    left.plot([0, 1], [0, 1], zorder=0, **DASHED)
    right.axhline(predictions[0].labels.mean(), zorder=0, **DASHED)
    left.set(xlabel="false positive rate", ylabel="true positive rate")
    right.set(xlabel="recall", ylabel="precision")
    for ax in (left, right):
        ax.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
        draw_grid(ax)
    legend = left.legend(lines, [""] * len(lines), fontsize=6.5, frameon=False)
    set_texts(legend, [shorten(each.system) for each in predictions])
    return left


@figure_style()
def _plot_comparisons(facts: StudyFacts) -> Axes:
    """Draw the differences of all pairs, row less column; frames mark shown differences."""
    systems = [MAJORITY, NO_INFORMATION, *facts.systems]
    every = [pair for pair in facts.comparisons if pair.family == "all pairs"]
    pairs = {frozenset((pair.a, pair.b)): pair for pair in every}
    n = len(systems)
    width = max(_COLUMN_WIDTH, min(PAGE_WIDTH, 0.5 * n + 1.2))
    [ax] = make_axes(width, width * 0.92)
    values = np.full((n - 1, n - 1), np.nan)
    texts, framed = {}, []
    for cell in zip(*map(np.ndarray.tolist, np.tril_indices(n - 1)), strict=True):
        row, column = cell
        pair = pairs[frozenset((systems[row + 1], systems[column]))]
        sign = 1 if pair.a == systems[row + 1] else -1
        value = values[cell] = sign * pair.difference
        # Without the sign of a zero that was rounded.
        text = f"{value:+.3f}".replace("0.", ".").replace("-.000", "+.000")
        weight = "bold" if pair.shows_difference else "normal"
        style = {"fontsize": 6.5 if n <= 12 else 5, "fontweight": weight}
        texts[cell] = text.replace("-", MINUS), style
        framed += [cell] * pair.shows_difference
    # Twice the range keeps every cell light enough for black figures.
    limit = 2 * (float(np.nanmax(np.abs(values))) or 1.0)
    shades: dict[str, Any] = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    draw_matrix(ax, values, (systems[1:], systems[:-1]), texts, framed=framed, **shades)
    ax.set_xlabel(f"{facts.metric.title}, row minus column\nframed: adjusted p at most .05")
    return ax


@figure_style()
def _plot_searches(facts: StudyFacts) -> Axes:
    """Draw the best inner score so far, one diagram per system.

    Thin lines are folds, the thick one is their mean.
    """
    axes = _make_grid(len(facts.searches), 1.6, x="trial", y=f"best inner {facts.metric.title}")
    for ax, (system, curves) in zip(axes, facts.search_curves.items(), strict=True):
        table = pd.DataFrame({fold: pd.Series(curve) for fold, curve in enumerate(curves)})
        trials = range(1, len(table) + 1)
        marks: dict[str, Any] = {"marker": "."} if len(table) == 1 else {}
        for fold in table.columns:
            ax.plot(trials, table[fold], color=BLUE, lw=0.6, alpha=0.5, **marks)
        # A search stopped early keeps its best, so that the mean stays one of folds.
        mean = table.ffill().mean(axis=1)
        ax.plot(trials, mean, color=VERMILION, lw=1.6, **marks)
        ax.set_title(shorten(system), fontsize=8, parse_math=False)
        if len(table) == 1:
            ax.set_xticks([1])
        else:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.grid(axis="y", lw=0.3, color="#cccccc")
    return axes[0]


def _make_grid(n: int, height: float, *, x: str, y: str) -> list[Axes]:
    """Make n axes in rows of at most three, in one figure with one label per direction."""
    columns, rows = min(n, 3), -(-n // 3)
    axes = make_axes(PAGE_WIDTH * columns / 3, height * rows + 0.2, rows, columns)
    for ax in axes[n:]:
        ax.remove()
    figure: Any = axes[0].figure
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    return axes[:n]


def name_rows(ax: Axes, names: Sequence[str], size: float = 8) -> None:
    """Name the rows of a figure from the top; the first is row 0."""
    labels = [shorten(name) for name in names]
    ax.set_yticks(range(len(names)), labels, fontsize=size, parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
