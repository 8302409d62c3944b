"""Predictions of one system for unseen people: the table behind all results.

Scores, fusion, comparisons and the report are functions of this table alone, so its files
reproduce every number without another fit.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.files import escape_formula, unescape_formula
from toolkit.validation.folds import Grouping

SUM_TOLERANCE: Final = 1e-6
"""Largest deviation from 1 of the sum of a row's probabilities."""

_MOST_PROBABLE: Final[NDArray[np.int64]] = np.empty(0, dtype=np.int64)


class _RowError(ValueError):
    """An error in one row and column, which a reader of files adds the file to."""

    def __init__(self, message: str, row: int, column: str) -> None:
        super().__init__(message)
        self.row = row
        self.column = column


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Out-of-fold predictions of one system, one row per utterance.

    Every row was predicted by a model that saw no utterance of its speaker (of its session,
    where sessions are held out). The arrays are checked, copied and made read-only.

    Parameters
    ----------
    system : str
        Name of the system, for example ``"text"`` or ``"early"``.
    classes : tuple of str
        Names of the classes in code order, at least two.
    utterances : ndarray of str, shape (n,)
        Identifiers, unique and sorted by code point.
    speakers : ndarray of str, shape (n,)
        Speaker of every utterance.
    sessions : ndarray of str, shape (n,), or None
        Session of every utterance; None for recordings without sessions.
    folds : ndarray of int64, shape (n,)
        Number of the outer fold that held the utterance out.
    present : ndarray of bool, shape (n,)
        False where no modality of the system is present: `proba` is then the training fold's
        class priors.
    labels : ndarray of int64, shape (n,)
        Position of the true class in `classes`.
    proba : ndarray of float64, shape (n, n_classes)
        Probabilities; every row sums to 1 within 1e-6. NaN throughout where the system gives
        classes alone, which only systems from outside do; `y_pred` is then needed.
    y_pred : ndarray of int64, shape (n,), optional
        Position of the predicted class. By default the most probable class, a tie going to
        the lowest position; class offsets change it.

    Raises
    ------
    ValueError
        If the arrays do not fit together, naming the utterance and the expected value.
    """

    system: str
    classes: tuple[str, ...]
    utterances: NDArray[np.str_]
    speakers: NDArray[np.str_]
    sessions: NDArray[np.str_] | None
    folds: NDArray[np.int64]
    present: NDArray[np.bool_]
    labels: NDArray[np.int64]
    proba: NDArray[np.float64]
    y_pred: NDArray[np.int64] = field(default_factory=lambda: _MOST_PROBABLE)

    def __post_init__(self) -> None:
        """Check the arrays, copy them and make them read-only."""
        if not self.system:
            raise ValueError("The predictions have no system name; expected one like 'text'.")
        classes = _checked_classes(self.classes)
        utterances = _checked_names("utterance", self.utterances)
        n = len(utterances)
        _check_order(utterances)
        hard = self.y_pred is not _MOST_PROBABLE
        proba = _checked_proba(self.proba, utterances, classes, hard=hard)
        y_pred = proba.argmax(axis=1) if self.y_pred is _MOST_PROBABLE else self.y_pred
        # The class is frozen, so checked copies are set below by object.__setattr__.
        checked: dict[str, Any] = {
            "classes": classes,
            "utterances": utterances,
            "speakers": _checked_names("speaker", self.speakers, n),
            "sessions": (
                None if self.sessions is None else _checked_names("session", self.sessions, n)
            ),
            "folds": _checked_codes("fold", self.folds, utterances),
            "present": _checked_flags(self.present, n),
            "labels": _checked_codes("label", self.labels, utterances, len(classes)),
            "proba": proba,
            "y_pred": _checked_codes("predicted", y_pred, utterances, len(classes)),
        }
        for name, value in checked.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Count the utterances."""
        return len(self.utterances)

    @property
    def has_proba(self) -> bool:
        """Whether there are probabilities, and not classes alone."""
        return not np.isnan(self.proba[0, 0])

    def __reduce__(self) -> tuple[type["Predictions"], tuple[Any, ...]]:
        """Rebuild through the constructor: a copy from another process is checked again."""
        return type(self), tuple(getattr(self, part.name) for part in fields(self))

    def groups(self, grouping: Grouping) -> NDArray[np.str_]:
        """Return the speaker or the session of every utterance, where there are sessions.

        Parameters
        ----------
        grouping : {"speaker", "session"}

        Returns
        -------
        ndarray of str, shape (n,)
            Group of every utterance.
        """
        if grouping == "speaker":
            return self.speakers
        if grouping != "session":
            raise ValueError(f"Unknown group {grouping!r}; expected 'speaker' or 'session'.")
        if self.sessions is None:
            raise ValueError(
                f"The predictions of {self.system!r} have no sessions; use group 'speaker'."
            )
        return self.sessions

    def fold_names(self) -> NDArray[np.str_]:
        """Return the name of every utterance's fold, sorting as text like the numbers.

        Returns
        -------
        ndarray of str, shape (n,)
            ``"00"``, ``"01"`` and so on: zero-padded, at least two digits.
        """
        width = max(2, len(str(self.folds.max())))
        return np.array([f"{fold:0{width}d}" for fold in self.folds.tolist()])

    def check_aligned(self, other: "Predictions") -> None:
        """Refuse predictions that differ from these in anything but the system.

        Parameters
        ----------
        other : Predictions
            Its classes, utterances, labels, speakers, sessions and folds are compared.
        """
        pair = f"The predictions of {self.system!r} and {other.system!r} are not aligned"
        if self.classes != other.classes:
            raise ValueError(
                f"{pair}: their classes are {list(self.classes)} and {list(other.classes)}; "
                "expected the same names in the same order."
            )
        if not np.array_equal(self.utterances, other.utterances):
            raise ValueError(f"{pair}: {_describe_rows(self, other)}.")
        if (self.sessions is None) != (other.sessions is None):
            named = self.system if other.sessions is None else other.system
            raise ValueError(f"{pair}: only {named!r} has sessions.")
        for name in ("labels", "speakers", "sessions", "folds"):
            ours, theirs = getattr(self, name), getattr(other, name)
            unequal = np.flatnonzero(ours != theirs)  # none where both have no sessions
            if len(unequal):
                row = int(unequal[0])
                raise ValueError(
                    f"{pair}: their {name} differ in {len(unequal)} of {len(self)} rows, first "
                    f"for utterance {str(self.utterances[row])!r} ({ours[row].item()!r} and "
                    f"{theirs[row].item()!r}); expected systems of one study, tested in the "
                    "same folds."
                )


def _checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(classes)
    if isinstance(classes, str) or len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"Got classes {classes!r}; expected two or more different names.")
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"Got classes {classes!r}; expected names that are not empty.")
    return names


def _checked_names(column: str, values: ArrayLike, n: int | None = None) -> NDArray[np.str_]:
    names = np.array(values)
    if names.dtype.kind != "U":  # None or NaN among the names would become the text "nan"
        raise ValueError(f"The {column}s are {names.dtype}; expected text in every row.")
    if names.ndim != 1 or len(names) == 0 or n not in {None, len(names)}:
        expected = "(n >= 1,)" if n is None else f"({n},)"
        raise ValueError(f"The {column}s have shape {names.shape}; expected {expected}.")
    if empty := np.flatnonzero(names == "").tolist():
        message = f"The {column} of row {empty[0]} (from 0) is empty; expected a name."
        raise _RowError(message, empty[0], column)
    return names


def _check_order(utterances: NDArray[np.str_]) -> None:
    if unordered := np.flatnonzero(utterances[1:] <= utterances[:-1]).tolist():
        row = unordered[0] + 1
        before, name = str(utterances[row - 1]), str(utterances[row])
        reason = "occurs twice" if before == name else f"comes after {before!r}"
        raise _RowError(
            f"Utterance {name!r} {reason}; expected unique utterances sorted by code point.",
            row,
            "utterance",
        )


def _checked_codes(
    column: str, values: ArrayLike, utterances: NDArray[np.str_], limit: int | None = None
) -> NDArray[np.int64]:
    codes = np.asarray(values)
    if codes.shape != utterances.shape or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(
            f"The {column} codes are {codes.dtype} of shape {codes.shape}; expected integers "
            f"of shape {utterances.shape}."
        )
    outside = (codes < 0) | (codes >= limit) if limit is not None else codes < 0
    if outside.any():
        row = int(outside.argmax())
        expected = "a number from 0" if limit is None else f"a position from 0 to {limit - 1}"
        raise _RowError(
            f"Utterance {str(utterances[row])!r} has {column} {codes[row]}; "
            f"expected {expected}.",
            row,
            column,
        )
    return codes.astype(np.int64)


def _checked_flags(values: ArrayLike, n: int) -> NDArray[np.bool_]:
    flags = np.array(values)
    if flags.shape != (n,) or flags.dtype != np.bool_:
        raise ValueError(
            f"`present` is {flags.dtype} of shape {flags.shape}; expected bool of shape ({n},)."
        )
    return flags


def _checked_proba(
    values: ArrayLike, utterances: NDArray[np.str_], classes: tuple[str, ...], *, hard: bool
) -> NDArray[np.float64]:
    # Sums of C- and Fortran-ordered rows differ in their last bits.
    proba = np.array(values, dtype=np.float64, order="C")
    if proba.shape != (len(utterances), len(classes)):
        raise ValueError(
            f"The probabilities have shape {proba.shape}; expected "
            f"{(len(utterances), len(classes))}: a row per utterance, a column per class."
        )
    if hard and np.isnan(proba).all():
        return proba
    within = (proba >= 0) & (proba <= 1 + SUM_TOLERANCE)  # False for NaN as well
    if not within.all():
        row, column = (int(i) for i in np.argwhere(~within)[0])
        raise _RowError(
            f"Utterance {str(utterances[row])!r} has probability {proba[row, column]} for "
            f"class {classes[column]!r}; expected a number from 0 to 1.",
            row,
            f"p_{classes[column]}",
        )
    totals = proba.sum(axis=1)
    far = np.abs(totals - 1) > SUM_TOLERANCE
    if far.any():
        row = int(far.argmax())
        raise _RowError(
            f"The probabilities of utterance {str(utterances[row])!r} sum to {totals[row]}; "
            f"expected 1 within {SUM_TOLERANCE}.",
            row,
            f"p_{classes[0]}",
        )
    return proba


def _describe_rows(first: Predictions, second: Predictions) -> str:
    only_first = np.setdiff1d(first.utterances, second.utterances)
    only_second = np.setdiff1d(second.utterances, first.utterances)
    parts = [
        f"{len(only)} of {len(system)} utterances of {system.system!r} are missing from the "
        f"other (first {str(only[0])!r})"
        for system, only in ((first, only_first), (second, only_second))
        if len(only)
    ]
    return "; ".join(parts) + "; expected the same utterances"


_COLUMNS: Final = (
    *("system", "utterance", "speaker", "session", "fold", "present", "label", "predicted"),
)
"""Columns of a predictions file before its ``p_<class>`` columns."""


def format_predictions(*tables: Predictions) -> str:
    """Write predictions of some systems as CSV text, the same bytes for the same numbers.

    Columns are ``system,utterance,speaker,session,fold,present,label,predicted`` and
    ``p_<class>...``, with a row per system and utterance, sorted by utterance. Probabilities
    have the shortest form that reads back equal, and are empty where a system has none.
    """
    names = tables[0].classes if tables else ()
    # Escaped behind the p_, so that a column and its label are spelt alike in the file.
    rows: list[Sequence[str]] = [[*_COLUMNS, *(f"p_{escape_formula(name)}" for name in names)]]
    for table in tables:
        n = len(table)
        rows += zip(
            [table.system] * n,
            table.utterances.tolist(),
            table.speakers.tolist(),
            [""] * n if table.sessions is None else table.sessions.tolist(),
            table.fold_names().tolist(),
            ["1" if seen else "0" for seen in table.present.tolist()],
            [names[code] for code in table.labels.tolist()],
            [names[code] for code in table.y_pred.tolist()],
            *(
                [repr(p) for p in column] if table.has_proba else [""] * n
                for column in table.proba.T.tolist()
            ),
            strict=True,
        )
    return "".join(",".join(map(_quote, row)) + "\n" for row in rows)


def parse_predictions(text: str, source: str) -> dict[str, Predictions]:
    """Read the text of :func:`format_predictions`, line ends untouched: system to predictions.

    They equal those written, bit by bit. Damage raises ValueError, which names the file
    (`source`), the row (the header is row 1) and the column.
    """
    # Checked first: a file cut inside its last number would still be a valid table.
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
    numbers: dict[str, list[int]] = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{source}, row {number}: {len(row)} fields; expected {len(header)}, one for "
                "each column of the header."
            )
        numbers.setdefault(row[0], []).append(number)
    if not rows:
        raise ValueError(f"{source}: no rows after the header.")
    tables = {}
    for system, found in numbers.items():
        cells = zip(*(rows[number - 2] for number in found), strict=True)
        try:
            columns = dict(zip(header, cells, strict=True))
            tables[system] = _parse_system(system, columns, classes)
        except _RowError as error:
            where = f"row {found[error.row]}, column {error.column!r}"
            raise ValueError(f"{source}, {where}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    return tables


def _parse_system(
    system: str, columns: Mapping[str, Sequence[str]], classes: tuple[str, ...]
) -> Predictions:
    codes = {name: code for code, name in enumerate(classes)}
    flags = {"0": False, "1": True}

    def convert(column: str, parse: Callable[[str], float], expected: str) -> NDArray[Any]:
        values = []
        for row, cell in enumerate(columns[column]):
            try:
                values.append(parse(cell))
            except (KeyError, ValueError):
                message = f"Got {cell!r}; expected {expected}."
                raise _RowError(message, row, column) from None
        return np.array(values)

    return Predictions(
        system=system,
        classes=classes,
        utterances=np.array(columns["utterance"]),
        speakers=np.array(columns["speaker"]),
        sessions=np.array(columns["session"]) if any(columns["session"]) else None,
        folds=convert("fold", _to_fold, "the number of a fold like '03'"),
        present=convert("present", flags.__getitem__, f"one of {list(flags)}"),
        labels=convert("label", codes.__getitem__, f"one of {list(codes)}"),
        proba=np.array(
            [convert(f"p_{k}", _to_probability, "a probability") for k in classes]
        ).T,
        y_pred=convert("predicted", codes.__getitem__, f"one of {list(codes)}"),
    )


def _quote(cell: str) -> str:
    cell = escape_formula(cell)
    # Not csv.writer: whether it quotes a lone carriage return depends on the Python version.
    if any(mark in cell for mark in ',"\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _header_classes(header: list[str], source: str) -> tuple[str, ...]:
    fixed, probabilities = header[: len(_COLUMNS)], header[len(_COLUMNS) :]
    if fixed != list(_COLUMNS):
        raise ValueError(f"{source}, row 1: columns {fixed}; expected {list(_COLUMNS)}.")
    for name in probabilities:
        if not name.startswith("p_") or probabilities.count(name) > 1:
            raise ValueError(
                f"{source}, row 1, column {name!r}: expected one column p_<class> a class."
            )
    return tuple(name.removeprefix("p_") for name in probabilities)


def _to_probability(cell: str) -> float:
    # A system without probabilities has empty cells; a mixture of both is refused later.
    return float(cell) if cell else math.nan


def _to_fold(cell: str) -> int:
    # int() alone would also read a sign, spaces, and digits of other alphabets.
    if not (cell.isascii() and cell.isdecimal()):
        raise ValueError
    return int(cell)
