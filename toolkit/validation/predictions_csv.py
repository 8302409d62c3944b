"""Predictions as the text of a CSV file, both ways; where the file lies is not known here."""

import csv
import io
from typing import Final

import numpy as np

from toolkit.files import escape_formula, unescape_formula
from toolkit.validation.predictions import Predictions, RowError

COLUMNS: Final = ("utterance", "speaker", "session", "fold", "present", "label", "predicted")
"""Columns of a predictions file before its ``p_<class>`` columns."""


def format_predictions(predictions: Predictions) -> str:
    """Write predictions as the text of a CSV file, the same bytes for the same numbers.

    Parameters
    ----------
    predictions : Predictions
        What to write.

    Returns
    -------
    str
        Columns ``utterance,speaker,session,fold,present,label,predicted,p_<class>...``, one
        row an utterance, sorted; probabilities in the shortest form that reads back equal.

    Examples
    --------
    >>> import numpy as np
    >>> from toolkit.validation.predictions import Predictions
    >>> one = np.array([1])
    >>> table = Predictions(
    ...     "text", ("no", "yes"), np.array(["a"]), np.array(["F01"]), None,
    ...     one, one > 0, one, np.array([[0.25, 0.75]]),
    ... )
    >>> for line in format_predictions(table).splitlines():
    ...     line
    'utterance,speaker,session,fold,present,label,predicted,p_no,p_yes'
    'a,F01,,01,1,yes,yes,0.25,0.75'
    """
    n = len(predictions)
    names = predictions.classes
    sessions = [""] * n if predictions.sessions is None else predictions.sessions.tolist()
    rows = zip(
        predictions.utterances.tolist(),
        predictions.speakers.tolist(),
        sessions,
        predictions.fold_names().tolist(),
        ["1" if seen else "0" for seen in predictions.present.tolist()],
        [names[code] for code in predictions.labels.tolist()],
        [names[code] for code in predictions.decided.tolist()],
        *([repr(p) for p in column] for column in predictions.proba.T.tolist()),
        strict=True,
    )
    # Marked behind the p_, so that a column and its label are spelt alike in the file.
    header = [*COLUMNS, *(f"p_{escape_formula(name)}" for name in names)]
    return "".join(",".join(map(_quote, row)) + "\n" for row in [header, *rows])


def parse_predictions(text: str, system: str, source: str) -> Predictions:
    """Read what :func:`format_predictions` wrote.

    Parameters
    ----------
    text : str
        Content of the file, line ends untouched.
    system : str
        Name of the system.
    source : str
        Name of the file, for messages.

    Returns
    -------
    Predictions
        Equal to those written, bit by bit.

    Raises
    ------
    ValueError
        If the file is damaged, naming file, row (the header is row 1) and column.
    """
    if not text.endswith("\n"):
        raise ValueError(f"{source}: the last line has no end; the file seems to be cut short.")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header, *rows = ([unescape_formula(cell) for cell in row] for row in reader)
        header = ["p_" + unescape_formula(c[2:]) if c.startswith("p_") else c for c in header]
    except csv.Error as error:
        raise ValueError(
            f"{source}, line {reader.line_num}: not a CSV table ({error})."
        ) from error
    classes = _header_classes(header, source)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{source}, row {number}: {len(row)} fields; expected {len(header)}, one for "
                "each column of the header."
            )
    if not rows:
        raise ValueError(f"{source}: no rows after the header; expected one an utterance.")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    codes = {name: code for code, name in enumerate(classes)}
    try:
        return Predictions(
            system=system,
            classes=classes,
            utterances=np.array(columns["utterance"]),
            speakers=np.array(columns["speaker"]),
            sessions=np.array(columns["session"]) if any(columns["session"]) else None,
            folds=np.array([_to_fold(cell, i) for i, cell in enumerate(columns["fold"])]),
            present=np.array(_to_codes(columns, "present", {"0": 0, "1": 1})) == 1,
            labels=np.array(_to_codes(columns, "label", codes)),
            proba=np.array([_to_floats(columns[f"p_{name}"], name) for name in classes]).T,
            decided=np.array(_to_codes(columns, "predicted", codes)),
        )
    except RowError as error:
        where = f"row {error.row + 2}, column {error.column!r}"
        raise ValueError(f"{source}, {where}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _quote(cell: str) -> str:
    cell = escape_formula(cell)
    # Not csv.writer: whether it quotes a lone carriage return depends on the Python version.
    if any(mark in cell for mark in ',"\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _header_classes(header: list[str], source: str) -> tuple[str, ...]:
    fixed, probabilities = header[: len(COLUMNS)], header[len(COLUMNS) :]
    if fixed != list(COLUMNS):
        raise ValueError(f"{source}, row 1: columns {fixed}; expected {list(COLUMNS)}.")
    for name in probabilities:
        if not name.startswith("p_") or probabilities.count(name) > 1:
            raise ValueError(
                f"{source}, row 1, column {name!r}: expected one column p_<class> a class."
            )
    return tuple(name.removeprefix("p_") for name in probabilities)


def _to_fold(cell: str, row: int) -> int:
    if not (cell.isascii() and cell.isdecimal()):
        raise RowError(f"Got {cell!r}; expected the number of a fold like '03'.", row, "fold")
    return int(cell)


def _to_codes(
    columns: dict[str, tuple[str, ...]], column: str, codes: dict[str, int]
) -> list[int]:
    for row, cell in enumerate(columns[column]):
        if cell not in codes:
            raise RowError(f"Got {cell!r}; expected one of {list(codes)}.", row, column)
    return [codes[cell] for cell in columns[column]]


def _to_floats(cells: tuple[str, ...], name: str) -> list[float]:
    values = []
    for row, cell in enumerate(cells):
        try:
            values.append(float(cell))
        except ValueError:
            message = f"Got {cell!r}; expected a probability."
            raise RowError(message, row, f"p_{name}") from None
    return values
