"""Numbers and names as readers see them, the same in every file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from unicodedata import bidirectional

from toolkit.report.parts import Cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.validation import Score

#: What an empty cell shows: there is no such number.
NONE: Final = "\N{EN DASH}"
_TURNING: Final = {
    "R",
    "AL",
    "AN",
    "RLE",
    "RLO",
    "RLI",
    "LRE",
    "LRO",
    "LRI",
    "FSI",
    "PDF",
    "PDI",
}
MINUS: Final = "\N{MINUS SIGN}"


def format_number(value: float) -> str:
    """Format a score or a loss.

    Examples
    --------
    >>> format_number(0.71249)
    '0.712'
    """
    return f"{value:.3f}"


def format_interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Format an interval.

    Examples
    --------
    >>> format_interval(0.65, 0.771)
    '[0.650, 0.771]'
    """
    if low is None or high is None:
        return ""
    return f"[{low:+.3f}, {high:+.3f}]" if sign else f"[{low:.3f}, {high:.3f}]"


def format_p(p: float | None) -> str:
    """Format a probability of a test.

    Examples
    --------
    >>> format_p(0.00391), format_p(1.0), format_p(0.00001)
    ('.0039', '1', '< .0001')
    """
    if p is None:
        return NONE
    if p < 0.00005:
        return "< .0001"
    return f"{p:.4f}".lstrip("0") if round(p, 4) < 1 else "1"


def format_share(part: int, whole: int) -> str:
    """Format a count among others.

    Examples
    --------
    >>> format_share(3, 12), format_share(0, 0)
    ('3 (25 %)', '0')
    """
    return f"{part:,} ({part / whole:.0%})".replace("%", " %") if whole else f"{part:,}"


def isolate(name: str) -> str:
    r"""Keep a name written from right to left from turning the sentence around it.

    Examples
    --------
    >>> isolate("anger"), isolate("\u05d0")
    ('anger', '\u2068א\u2069')
    """
    turned = any(bidirectional(mark) in _TURNING for mark in name)
    return f"\N{FIRST STRONG ISOLATE}{name}\N{POP DIRECTIONAL ISOLATE}" if turned else name


def join_names(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    Examples
    --------
    >>> join_names(["text", "audio", "visual"])
    'text, audio and visual'
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def count_words(n: int, noun: str) -> str:
    """Write a count with its noun.

    Parameters
    ----------
    n : int
        The count.
    noun : str
        In the singular; its plural takes an s.

    Returns
    -------
    str
        For example "3 folds".

    Examples
    --------
    >>> count_words(1, "fold"), count_words(1336, "utterance")
    ('1 fold', '1,336 utterances')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def count_cell(n: int) -> Cell:
    """Make a cell of a count.

    Parameters
    ----------
    n : int
        The count.

    Returns
    -------
    Cell
        Sorted by it.
    """
    return Cell(f"{n:,}", float(n))


def number_cell(value: float | None) -> Cell:
    """Make a cell of a score.

    Parameters
    ----------
    value : float or None
        The number.

    Returns
    -------
    Cell
        Sorted by it; a dash where there is none.
    """
    return Cell(NONE) if value is None else Cell(format_number(value), value)


def score_cell(score: Score) -> Cell:
    """Make a cell of a score and its interval."""
    text = f"{format_number(score.value)} {format_interval(score.low, score.high)}"
    return Cell(text.strip(), score.value)


def share_cell(part: int, whole: int) -> Cell:
    """Make a cell of a count and its share."""
    return Cell(format_share(part, whole), float(part))


def p_cell(p: float | None) -> Cell:
    """Make a cell of a probability of a test."""
    return Cell(format_p(p), p)
