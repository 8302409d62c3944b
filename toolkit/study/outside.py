"""Systems from outside: their predictions in a CSV, checked against a study."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.data.csv_table import Rows
from toolkit.files import unescape_formula
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.options import OUTSIDE
from toolkit.study.terminal import list_some
from toolkit.systems import RESERVED
from toolkit.validation import METRICS, Predictions, outer_grouping

_COLUMNS: Final = (
    *("system", "utterance", "speaker", "session", "fold", "present", "label", "predicted"),
)
#: Sums of rounded probabilities may differ from 1 by this much; tables hold exact ones.
_ROUNDED, _EXACT = 1e-3, 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """A system from outside.

    - table: Its predictions of the tested utterances, aligned to the study.
    - n_folds: Number of folds that its file names; None where it names none.
    - kept, text: Path and content of the copy of its file in the study's folder.
    """

    table: Predictions
    n_folds: int | None
    kept: str
    text: str


def read_outside(
    config: StudyConfig, frame: Predictions, modalities: Collection[str]
) -> dict[str, Outside]:
    """Read and check the files of ``--with``; `frame` holds the tested rows of the study."""
    found = {}
    for name, path in sorted(config.with_.items()):
        taken = name in modalities or name.lower() in RESERVED
        if taken or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise ConfigError(
                f"--with {name}: this cannot name a system; expected letters, digits and "
                "underscores, and no modality, fusion or baseline."
            )
        # Held-out content is not in the file: its folds are compared by people alone.
        people = outer_grouping(config.outer.removesuffix("+content"))
        found[name] = _Reader(path, frame).read(name, people)
        if not found[name].table.has_proba and METRICS[config.metric].needs_proba:
            raise ConfigError(
                f"--with {name}: {path.name} has no probabilities (columns p_<class>), and "
                f"--metric {config.metric} needs them."
            )
    return found


class _Reader:
    """The reader of one file, its rows in the order of the study's.

    - frame: Predictions of the tested utterances, of any system of the study.
    """

    def __init__(self, path: Path, frame: Predictions) -> None:
        rows = Rows.read(path)
        self.problems = rows.problems
        self.text = path.read_bytes().decode("utf-8")
        self.frame = frame
        self.probabilities = [f"p_{name}" for name in frame.classes]
        header = [unescape_formula(name) for name in rows.header]
        header = ["p_" + unescape_formula(n[2:]) if n[:2] == "p_" else n for n in header]
        self._check_header(header)
        if "system" in header and len(names := {*rows.column(header.index("system"))}) > 1:
            self.problems.refuse(
                f"The file holds {len(names)} systems ({list_some(sorted(names))}); expected "
                "one: keep its rows alone."
            )
        ids = [unescape_formula(cell) for cell in rows.column(header.index("utterance"))]
        self._check_utterances(ids, rows.numbers)
        order = np.argsort(np.array(ids)).tolist()
        self.numbers = [rows.numbers[k] for k in order]
        self.columns = {
            name: [unescape_formula(rows.cells[k][column]) for k in order]
            for column, name in enumerate(header)
        }

    def read(self, name: str, unit: Any) -> Outside:
        """Give the system of this name; `unit` is what the study holds out."""
        frame = self.frame
        codes = {name: code for code, name in enumerate(frame.classes)}
        self._compare("label", [frame.classes[code] for code in frame.labels.tolist()])
        self._compare("speaker", frame.speakers.tolist())
        if frame.sessions is not None:
            self._compare("session", frame.sessions.tolist())
        present = self._look_up("present", {"1": True, "0": False})
        y_pred = self._look_up("predicted", codes)
        n_folds = self._count_folds(frame.groups(unit).tolist(), unit)
        proba = self._read_proba()
        self.problems.raise_any()
        totals = proba.sum(axis=1)
        rounded = np.abs(totals - 1) > _EXACT
        proba[rounded] /= totals[rounded, None]
        table = replace(
            frame,
            system=f"outside+{name}",
            present=np.ones(len(frame), bool) if present is None else present,
            proba=proba,
            y_pred=proba.argmax(axis=1) if y_pred is None else y_pred,
        )
        return Outside(table, n_folds, OUTSIDE.format(name), self.text)

    def _check_header(self, header: Sequence[str]) -> None:
        """Refuse columns that are missing, unknown or there twice."""
        expected = ", ".join((*_COLUMNS, *self.probabilities))
        given = {name for name in header if name[:2] == "p_"}
        for found, fault in (
            ({n for n in header if header.count(n) > 1}, "are there twice"),
            ({*header} - {*_COLUMNS, *self.probabilities}, "are unknown"),
            ({"utterance"} - {*header}, "are missing"),
            ({*self.probabilities} - given if given else (), "are missing"),
            (() if given else {"predicted"} - {*header}, "or probabilities are missing"),
        ):
            if found:
                self.problems.refuse(
                    f"Columns {list_some(map(repr, sorted(found)))} {fault}; expected columns "
                    f"are {expected}."
                )

    def _check_utterances(self, ids: Sequence[str], numbers: Sequence[int]) -> None:
        """Refuse a row too many or too few: every system is scored on the same rows."""
        rows: defaultdict[str, list[str]] = defaultdict(list)
        for name, number in zip(ids, numbers, strict=True):
            rows[name].append(str(number))
        expected = self.frame.utterances.tolist()
        extra = rows.keys() - expected
        for found, fault in (
            ([n for n in rows if len(rows[n]) > 1], "utterances have several rows"),
            ([n for n in rows if n in extra], "utterances are not tested in this study"),
            ([n for n in expected if n not in rows], "tested utterances have no row"),
        ):
            if found:
                named = (
                    f"{n!r} (row {list_some(rows[n])})" if n in rows else repr(n) for n in found
                )
                self.problems.add(
                    f"{len(found)} {fault}: {list_some(named)}; expected one row for each of "
                    f"{len(expected)} tested utterances."
                )
        self.problems.raise_any()

    def _compare(self, column: str, right: Sequence[str]) -> None:
        """Refuse cells that are not the study's."""
        cells = self.columns.get(column, right)
        for row, (cell, expected) in enumerate(zip(cells, right, strict=True)):
            if cell != expected:
                self._add(row, column, f"Got {cell!r}; expected {expected!r}.")

    def _look_up(self, column: str, values: Mapping[str, int]) -> NDArray[Any] | None:
        """Look up the cells of a column; None where there is no such column."""
        if column not in self.columns:
            return None
        for row, cell in enumerate(self.columns[column]):
            if cell not in values:
                self._add(row, column, f"Got {cell!r}; expected one of {', '.join(values)}.")
        return np.array([values.get(cell, 0) for cell in self.columns[column]])

    def _read_proba(self) -> NDArray[np.float64]:
        """Read the probabilities; NaN where decisions stand alone."""
        proba = np.full(self.frame.proba.shape, np.nan)
        if "predicted" in self.columns and not any(
            any(self.columns.get(name, ())) for name in self.probabilities
        ):
            return proba
        for code, name in enumerate(self.probabilities):
            for row, cell in enumerate(self.columns[name]):
                proba[row, code] = _to_number(cell)
                if not 0 <= proba[row, code] <= 1:
                    self._add(row, name, f"Got {cell!r}; expected a number from 0 to 1.")
        totals = proba.sum(axis=1)
        for row in np.flatnonzero(np.abs(totals - 1) > _ROUNDED).tolist():
            text = f"The probabilities sum to {totals[row]:.6g}; expected 1 within {_ROUNDED}."
            self._add(row, self.probabilities[0], text)
        return proba

    def _count_folds(self, groups: Sequence[str], unit: str) -> int | None:
        """Refuse folds that test one held-out group in several: other folds trained on it."""
        if "fold" not in self.columns:
            return None
        tested: defaultdict[str, set[str]] = defaultdict(set)
        for row, (group, fold) in enumerate(zip(groups, self.columns["fold"], strict=True)):
            if not fold:
                self._add(row, "fold", "The fold is empty; expected the fold that tested it.")
            tested[group].add(fold)
        if split := [group for group, folds in tested.items() if len(folds) > 1]:
            self.problems.add(
                f"{len(split)} {unit}s are tested in several folds, first {split[0]!r} in "
                f"{list_some(sorted(tested[split[0]]))}: a model of each fold was trained on "
                f"that {unit}'s other utterances, and this study holds out whole {unit}s.",
                column="fold",
            )
        return len(set(self.columns["fold"]))

    def _add(self, row: int, column: str, text: str) -> None:
        self.problems.add(text, row=self.numbers[row], column=column)


def _to_number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
