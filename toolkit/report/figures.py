"""Figures at paper size; each is drawn from a table and can be drawn into an axes of yours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from toolkit.validation import confusion_matrices

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from toolkit.validation import Predictions

#: Width of a column of a two-column paper, in inches.
COLUMN_WIDTH: Final = 3.5

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    # Without these two an SVG holds a random salt and the names of its glyphs' font files.
    "svg.hashsalt": "modality-toolkit",
    "svg.fonttype": "none",
}
_LONGEST_NAME: Final = 18


def compute_confusion(predictions: Predictions) -> pd.DataFrame:
    """Count how often each class was taken for each.

    Parameters
    ----------
    predictions : Predictions
        Of one system.

    Returns
    -------
    pandas.DataFrame
        Rows are true classes, columns predicted ones, cells utterances.
    """
    counts = confusion_matrices(
        predictions.labels, predictions.decided, len(predictions.classes)
    )[0].astype(np.int64)
    names = list(predictions.classes)
    return pd.DataFrame(
        counts, index=pd.Index(names, name="true"), columns=pd.Index(names, name="predicted")
    )


def plot_confusion(predictions: Predictions, ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix: colour is the share of the true class, cells hold counts.

    Parameters
    ----------
    predictions : Predictions
        Of one system.
    ax : Axes, optional
        Where to draw; a figure of a paper column's width by default.

    Returns
    -------
    Axes
        What was drawn on.
    """
    table = compute_confusion(predictions)
    counts = table.to_numpy()
    n_true = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, n_true, out=np.zeros(counts.shape), where=n_true > 0)
    with mpl.rc_context(_STYLE):
        if ax is None:
            side = max(COLUMN_WIDTH, 0.45 * len(table) + 1.2)
            ax = Figure(figsize=(side, side * 0.95), layout="constrained").subplots()
        image = ax.imshow(shares, cmap="cividis", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            ax.text(
                column,
                row,
                f"{count}\n{shares[row, column]:.0%}",
                ha="center",
                va="center",
                fontsize=7 if len(table) <= 6 else 5.5,
                # Dark cells take light figures: cividis is light from about the middle on.
                color="white" if shares[row, column] < 0.55 else "black",
            )
        names = [shorten(name) for name in table.index]
        ax.set_xticks(range(len(names)), names, rotation=35, ha="right", parse_math=False)
        ax.set_yticks(range(len(names)), names, parse_math=False)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        ax.set_title(f"{predictions.system}: utterances, share of true class", fontsize=8)
        assert ax.figure is not None
        ax.figure.colorbar(image, ax=ax, shrink=0.8, format=lambda value, _: f"{value:.0%}")
    return ax


def save_figure(ax: Axes, stem: Path) -> None:
    """Save the figure of some axes as SVG and PNG, the same bytes for the same drawing.

    Parameters
    ----------
    ax : Axes
        Any axes of the figure.
    stem : Path
        File name without its extension.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    with mpl.rc_context(_STYLE):
        figure.savefig(stem.with_name(stem.name + ".svg"), metadata={"Date": None})
        figure.savefig(stem.with_name(stem.name + ".png"), dpi=300, metadata={"Software": None})


def shorten(name: str) -> str:
    """Shorten a name for an axis; tables hold the whole of it.

    Parameters
    ----------
    name : str
        For example a class.

    Returns
    -------
    str
        At most 18 characters.

    Examples
    --------
    >>> shorten("contentment-and-relief-after-tension")
    'contentment-and-r…'
    """
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
