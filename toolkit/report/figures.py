"""Figures: paper size, fonts and colours, rendering to fixed bytes, and the plots of scores."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from toolkit.report.document import MINUS
from toolkit.report.facts import StudyFacts
from toolkit.systems import MAJORITY, NO_INFORMATION
from toolkit.validation import Predictions, Score, confusion_matrices, reliability_bins
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
_LONGEST_NAME: Final = 18
#: Tick labels that are too long to stand side by side.
TURNED: Final[dict[str, Any]] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the report's style while the block runs."""
    with mpl.rc_context(_STYLE):
        yield


def _make_axes(width: float, height: float) -> Axes:
    """Make the axes of a new figure of this size in inches."""
    # Not pyplot's: that keeps every figure alive until the process ends.
    return Figure(figsize=(width, height), layout="constrained").subplots()


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
        if len(facts.classes) == 2:
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


def _compute_confusion(predictions: Predictions) -> pd.DataFrame:
    """Count utterances by true class (rows) and predicted class (columns)."""
    counts = confusion_matrices(
        predictions.labels, predictions.y_pred, len(predictions.classes)
    )[0]
    names = list(predictions.classes)
    return pd.DataFrame(
        counts, index=pd.Index(names, name="true"), columns=pd.Index(names, name="predicted")
    )


def _plot_confusion(predictions: Predictions) -> Axes:
    """Draw a confusion matrix; colour is the share of the true class, cells hold counts."""
    table = _compute_confusion(predictions)
    counts = table.to_numpy()
    n_true = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, n_true, out=np.zeros(counts.shape), where=n_true > 0)
    with figure_style():
        side = max(_COLUMN_WIDTH, 0.5 * len(table) + 1.3)
        ax = _make_axes(side, side * 0.9)
        image = ax.imshow(shares, cmap=SHARES, vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            ax.text(
                column,
                row,
                f"{count}\n{shares[row, column]:.0%}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if shares[row, column] < 0.75 else "white",
            )
        names = [shorten(name) for name in table.index]
        turned = TURNED if max(map(len, names)) > 4 else {}
        ax.set_xticks(range(len(names)), names, parse_math=False, **turned)
        ax.set_yticks(range(len(names)), names, parse_math=False)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        ax.set_title(f"{predictions.system}: utterances, share of true class", fontsize=8)
        assert ax.figure is not None
        ax.figure.colorbar(image, ax=ax, shrink=0.8, format=lambda value, _: f"{value:.0%}")
    return ax


def _plot_scores(facts: StudyFacts) -> Axes:
    """Draw pooled scores and intervals, a row per system; a dashed line at the baseline."""
    systems = [*facts.systems, *facts.baselines]
    published = [each for each in facts.published if each["metric"] == facts.metric.name]
    with figure_style():
        ax = _make_axes(_COLUMN_WIDTH, 0.19 * (len(systems) + len(published)) + 0.75)
        ax.axvline(facts.score(facts.baseline).value, color=GREY, lw=0.8, ls="--", zorder=0)
        for row, system in enumerate(systems):
            score = facts.score(system)
            color, marker = (GREY, "s") if system in facts.baselines else (BLUE, "o")
            color = GREEN if system in facts.outside else color
            _draw_score(ax, row, score, color, marker)
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
    ax.annotate(
        f"{value:.3f}",
        (1.01, row),
        xycoords=("axes fraction", "data"),
        va="center_baseline",
        fontsize=7,
    )


def _plot_speakers(facts: StudyFacts) -> Axes:
    """Draw the score of every speaker, one row per system."""
    systems = [*facts.systems, MAJORITY, NO_INFORMATION]
    speakers = facts.tested_speakers
    with figure_style():
        ax = _make_axes(_COLUMN_WIDTH, 0.2 * len(systems) + 0.75)
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


def _plot_groups(facts: StudyFacts) -> Axes:
    """Draw the score of every group of people, and those of its people."""
    system = facts.primary
    people = {
        name: facts.score(system, scope="speaker", group=name).value
        for name in facts.tested_speakers
    }
    rows = [("everyone", facts.score(system), list(people))] + [
        (f"{column}: {group}", facts.score(system, scope=f"by {column}", group=group), inside)
        for column, groups in facts.groups.items()
        for group, inside in groups.items()
    ]
    with figure_style():
        ax = _make_axes(_COLUMN_WIDTH * 1.4, 0.26 * len(rows) + 0.9)
        for row, (_, score, inside) in enumerate(rows):
            values = [people[name] for name in inside]
            ax.plot(values, [row] * len(values), "|", color=GREY, ms=9, alpha=0.7)
            _draw_score(ax, row, score)
        for pick, side in ((min, "left"), (max, "right")):
            name = pick(people, key=lambda name: (people[name], name))
            text = shorten(name, 12)
            ax.text(people[name], -0.35, text, fontsize=6.5, ha=side, parse_math=False)
        name_rows(ax, [name for name, _, _ in rows])
        ax.set_ylim(top=-0.9)
        ax.set_xlabel(facts.metric.title)
        draw_grid(ax, "x")
    return ax


def _plot_risk(facts: StudyFacts) -> Axes:
    """Draw the error among the most confident utterances by their share."""
    risks = risk_curve(facts.predictions[facts.primary])
    with figure_style():
        ax = _make_axes(_COLUMN_WIDTH, 2.2)
        ax.plot(np.arange(1, len(risks) + 1) / len(risks), risks, color=BLUE, lw=1.2)
        for chosen in facts.errors:
            ax.axhline(chosen, color=GREY, lw=0.7, ls="--", zorder=0)
        ax.set(xlim=(0, 1), ylim=(0, None), xlabel="share answered", ylabel="error")
        draw_grid(ax)
    return ax


def _plot_curve(facts: StudyFacts) -> Axes:
    """Draw the score of the fixed configuration by its number of training speakers."""
    with figure_style():
        ax = _make_axes(_COLUMN_WIDTH, 2.2)
        for size, score in facts.curve.items():
            if score.low is not None and score.high is not None:
                ax.plot([size, size], [score.low, score.high], color=BLUE, lw=1.4)
        values = [score.value for score in facts.curve.values()]
        ax.plot(list(facts.curve), values, "o-", color=BLUE, lw=0.9, ms=4)
        ax.axhline(facts.score(facts.baseline).value, color=GREY, lw=0.8, ls="--", zorder=0)
        ax.set_xticks(list(facts.curve))
        ax.set_xlabel("training speakers")
        ax.set_ylabel(facts.metric.title)
        draw_grid(ax, "y")
    return ax


def _plot_calibration(predictions: Sequence[Predictions]) -> Axes:
    """Draw the reliability diagrams of systems side by side."""
    with figure_style():
        axes = _make_grid(
            len(predictions),
            across=3,
            height=2.1,
            x="probability",
            y="share of right decisions",
        )
        for ax, each in zip(axes, predictions, strict=True):
            _plot_reliability(each, ax)
    return axes[0]


def _plot_reliability(predictions: Predictions, ax: Axes) -> None:
    """Draw a reliability diagram: the share of right decisions by probability."""
    bins = reliability_bins(predictions)
    counts, edges = np.histogram(predictions.proba.max(axis=1), bins=20, range=(0, 1))
    ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--", zorder=1)
    ax.bar(
        edges[:-1], 0.25 * counts / counts.max(), 0.05, align="edge", color="#d0d4da", zorder=0
    )
    confidence = [each.confidence for each in bins]
    accuracy = [each.accuracy for each in bins]
    ax.plot(confidence, accuracy, "o-", color=BLUE, lw=0.9, ms=3.5, clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xticks([0, 0.5, 1])
    ax.set_yticks([0, 0.5, 1])
    ax.set_title(shorten(predictions.system), fontsize=8, parse_math=False)


def _plot_ranking(predictions: Sequence[Predictions]) -> Axes:
    """Draw ROC and precision-recall curves of the second of two classes."""
    with figure_style():
        figure = Figure(figsize=(PAGE_WIDTH * 0.8, 2.9), layout="constrained")
        axes: list[Axes] = figure.subplots(1, 2).tolist()
        lines = []
        for color, each in zip(COLORS, predictions, strict=False):
            positive = each.proba[:, 1]
            false, true, _ = roc_curve(each.labels, positive)
            precision, recall, _ = precision_recall_curve(each.labels, positive)
            lines += axes[0].plot(false, true, color=color, lw=1.1)
            axes[1].plot(recall, precision, color=color, lw=1.1, drawstyle="steps-post")
        axes[0].plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--", zorder=0)
        axes[1].axhline(predictions[0].labels.mean(), color=GREY, lw=0.8, ls="--", zorder=0)
        axes[0].set(xlabel="false positive rate", ylabel="true positive rate")
        axes[1].set(xlabel="recall", ylabel="precision")
        for ax in axes:
            ax.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
            draw_grid(ax)
        legend = axes[0].legend(lines, [""] * len(lines), fontsize=6.5, frameon=False)
        set_texts(legend, [shorten(each.system) for each in predictions])
    return axes[0]


def _plot_comparisons(facts: StudyFacts) -> Axes:
    """Draw the differences of all pairs, row less column; frames mark shown differences."""
    systems = [MAJORITY, NO_INFORMATION, *facts.systems]
    pairs = {
        frozenset((pair.a, pair.b)): pair
        for pair in facts.comparisons
        if pair.family == "all pairs"
    }
    n = len(systems)
    values = np.full((n - 1, n - 1), np.nan)
    with figure_style():
        width = max(_COLUMN_WIDTH, min(PAGE_WIDTH, 0.5 * n + 1.2))
        ax = _make_axes(width, width * 0.92)
        for row in range(1, n):
            for column in range(row):
                pair = pairs[frozenset((systems[row], systems[column]))]
                sign = 1 if pair.a == systems[row] else -1
                value = values[row - 1, column] = sign * pair.difference
                shown = pair.shows_difference
                ax.text(
                    column,
                    row - 1,
                    # Without the sign of a zero that was rounded.
                    f"{value:+.3f}".replace("0.", ".")
                    .replace("-.000", "+.000")
                    .replace("-", MINUS),
                    ha="center",
                    va="center",
                    fontsize=6.5 if n <= 12 else 5,
                    fontweight="bold" if shown else "normal",
                )
                if shown:
                    x = column + np.array([-0.46, 0.46, 0.46, -0.46, -0.46])
                    y = row - 1 + np.array([-0.46, -0.46, 0.46, 0.46, -0.46])
                    ax.plot(x, y, color="black", lw=1.0)
        limit = float(np.nanmax(np.abs(values))) or 1.0
        # Twice the range keeps every cell light enough for black figures.
        image = ax.imshow(values, cmap="PuOr_r", vmin=-2 * limit, vmax=2 * limit)
        image.set_zorder(-1)
        across = [shorten(name) for name in systems[:-1]]
        ax.set_xticks(range(n - 1), across, parse_math=False, **TURNED)
        ax.set_yticks(range(n - 1), [shorten(s) for s in systems[1:]], parse_math=False)
        ax.set_xlabel(f"{facts.metric.title}, row minus column; framed: adjusted p at most .05")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    return ax


def _plot_searches(facts: StudyFacts) -> Axes:
    """Draw the best inner score so far, one diagram per system.

    Thin lines are folds, the thick one is their mean.
    """
    with figure_style():
        axes = _make_grid(
            len(facts.searches),
            across=3,
            height=1.6,
            x="trial",
            y=f"best inner {facts.metric.title}",
        )
        for ax, (system, searches) in zip(axes, facts.searches.items(), strict=True):
            curves = [pd.Series(facts.best_so_far(each), dtype=float) for each in searches]
            table = pd.DataFrame(dict(enumerate(curves)))
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


def _make_grid(n: int, *, across: int, height: float, x: str, y: str) -> list[Axes]:
    """Make n axes in rows of at most `across`, in one figure with one label per direction."""
    columns, rows = min(n, across), -(-n // across)
    size = (PAGE_WIDTH * columns / across, height * rows + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    axes: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in axes[n:]:
        ax.remove()
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    return axes[:n]


def name_rows(ax: Axes, names: Sequence[str], size: float = 8) -> None:
    """Name the rows of a figure from the top; the first is row 0."""
    labels = [shorten(name) for name in names]
    ax.set_yticks(range(len(names)), labels, fontsize=size, parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
