"""Names that a spreadsheet would run as formulas, written so that it takes them for text.

A file of results is opened by programs of both kinds: spreadsheets, which compute a cell that
begins with an equals sign, and programs that compare names letter by letter. So only a cell
that could do something is marked, with an apostrophe before it, and the mark is taken away when
the file is read back. Numbers with a sign, ``@ann`` and the ids of video sites that begin with
a minus can do nothing and stay as they are.
"""

import re

# What runs begins with an equals sign, or with another sign and calls or refers to something.
# Marks that were there before are counted in, so that taking one away gives the name again.
_FORMULA = re.compile(r"'*(=|[+\-@].*[(|!])", re.DOTALL)


def disarm(cell: str) -> str:
    """Mark a cell that a spreadsheet would run.

    Parameters
    ----------
    cell : str
        A name.

    Returns
    -------
    str
        The name, behind an apostrophe where it would run.

    Examples
    --------
    >>> [disarm(name) for name in ("=1+1", "@SUM(A1)", "-1", "-3g5yACwYnA[2]", "anna")]
    ["'=1+1", "'@SUM(A1)", '-1', '-3g5yACwYnA[2]', 'anna']
    """
    return "'" + cell if _FORMULA.match(cell) else cell


def rearm(cell: str) -> str:
    """Take the mark of :func:`disarm` away.

    Parameters
    ----------
    cell : str
        A cell of a file.

    Returns
    -------
    str
        The name.

    Examples
    --------
    >>> rearm("'=1+1"), rearm("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
