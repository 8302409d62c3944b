"""What all figures share: paper size, fonts, colours, and saving them to the same bytes."""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

#: Width of a column of a two-column paper, and of both columns, in inches.
COLUMN_WIDTH: Final = 3.5
PAGE_WIDTH: Final = 7.2

#: Okabe and Ito's colours, which differ for colour-blind readers; without yellow, which is
#: too light on paper.
BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
GREY: Final = "#6B6B6B"

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
}
_LONGEST_NAME: Final = 18


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the report's style while the block runs."""
    with mpl.rc_context(_STYLE):
        yield


def make_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Take the axes that were given, or make a figure for one."""
    if ax is not None:
        return ax
    return Figure(figsize=(width, height), layout="constrained").subplots()


def render_figure(ax: Axes, end: str) -> bytes:
    """Render the figure of some axes, the same bytes for the same drawing.

    Parameters
    ----------
    ax : Axes
        Any axes of the figure.
    end : {"svg", "png"}
        The format; PNG has 300 dots an inch.

    Returns
    -------
    bytes
        The file's content.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    options: dict[str, Any] = {"metadata": {"Date": None}}
    if end == "png":
        options = {"metadata": {"Software": None}, "dpi": 300}
    content = io.BytesIO()
    with figure_style(), warnings.catch_warnings():
        # Names in scripts that the font lacks are boxes in the PNG; the SVG holds them as
        # text, which readers' own fonts show.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure.savefig(content, format=end, **options)
    return content.getvalue()


def save_figure(ax: Axes, stem: Path) -> None:
    """Save the figure of some axes as SVG and PNG, the same bytes for the same drawing.

    Parameters
    ----------
    ax : Axes
        Any axes of the figure.
    stem : Path
        File name without its extension.
    """
    for end in ("svg", "png"):
        stem.with_name(f"{stem.name}.{end}").write_bytes(render_figure(ax, end))


def set_texts(legend: Legend, names: Sequence[str]) -> None:
    """Write names of the data into a legend, whatever characters they hold."""
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def shorten(name: str, longest: int = _LONGEST_NAME) -> str:
    """Shorten a name for an axis; tables hold the whole of it.

    Examples
    --------
    >>> shorten("contentment-and-relief-after-tension")
    'contentment-and-r…'
    """
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "…"
