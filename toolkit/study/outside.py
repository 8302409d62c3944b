"""Predictions from outside: read from a CSV, checked against a study, kept in its folder."""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.data.csv_table import Rows
from toolkit.files import (
    INTERNAL,
    FolderError,
    format_json,
    hash_file,
    read_json,
    unescape_formula,
)
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.inventory import Inventory
from toolkit.validation import (
    METRICS,
    Predictions,
    format_predictions,
    outer_grouping,
    parse_predictions,
)

logger = logging.getLogger(__name__)

_FOLDER: Final = f"{INTERNAL}/outside"
#: File, digest and number of folds of every system.
_ABOUT: Final = f"{_FOLDER}/about.json"
_COLUMNS: Final = (
    *("system", "utterance", "speaker", "session", "fold", "present", "label", "predicted"),
)
#: Sums of rounded probabilities may differ from 1 by this much.
_ROUNDING: Final = 1e-3
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """Systems from outside.

    - tables: Name to its predictions of the tested utterances, aligned to the study.
    - about: Name to file, SHA-256 and number of folds of its source; no folds are None.
    """

    tables: Mapping[str, Predictions]
    about: Mapping[str, dict[str, Any]]

    @classmethod
    def read(cls, config: StudyConfig, frame: Predictions, available: Sequence[str]) -> Self:
        """Read and check the files of ``--with``; `frame` holds the tested rows."""
        tables, about = {}, {}
        for name, path in sorted(config.with_.items()):
            if name in available:
                raise ConfigError(f"--with {name}: a modality of this study has that name.")
            # Held-out content is not in the file: its folds are compared by people alone.
            people = outer_grouping(config.outer.removesuffix("+content"))
            table, n_folds = _Reader(path, frame, people).read(name)
            if not table.has_proba and METRICS[config.metric].needs_proba:
                raise ConfigError(
                    f"--with {name}: {path.name} has no probabilities (columns p_<class>), "
                    f"and --metric {config.metric} needs them."
                )
            tables[name] = table
            about[name] = {"file": path.name, "sha256": hash_file(path), "folds": n_folds}
        return cls(tables, about)

    @classmethod
    def restore(cls, folder: Path, frame: Predictions) -> Self:
        """Read the systems that a study's folder keeps; `frame` holds its tested rows."""
        if not (folder / _ABOUT).exists():
            return cls({}, {})
        about, tables = read_json(folder / _ABOUT), {}
        for name in about:
            path = folder / _FOLDER / f"{name}.csv"
            try:
                table = parse_predictions(path.read_bytes().decode("utf-8"), path.name)[name]
                frame.check_aligned(table)
            except (OSError, ValueError, KeyError) as error:
                raise FolderError(
                    f"{path} is damaged ({error}). Run the study's own command again: "
                    "finished units are kept."
                ) from None
            tables[name] = table
        return cls(tables, about)

    def format(self) -> dict[str, str]:
        """Write the files that a study's folder keeps; none without any system."""
        if not self.tables:
            return {}
        texts = {f"{_FOLDER}/{n}.csv": format_predictions(t) for n, t in self.tables.items()}
        return texts | {_ABOUT: format_json(self.about)}

    def keep(self, folder: Path) -> None:
        """Keep these systems in a study's folder, and no others of earlier runs."""
        contents = {name: text.encode("utf-8") for name, text in self.format().items()}
        inventory = Inventory(folder)
        inventory.write(contents, whole=False)
        kept = (path.relative_to(folder).as_posix() for path in folder.glob(f"{_FOLDER}/*"))
        inventory.remove(set(kept) - contents.keys())


class _Reader:
    """The reader of one file.

    - frame: Predictions of the tested utterances, of any system of the study.
    - grouping: Unit that the study holds out.
    """

    def __init__(self, path: Path, frame: Predictions, grouping: Any) -> None:
        self.rows = Rows.read(path)
        self.problems = self.rows.problems
        self.frame = frame
        self.grouping = grouping
        header = [unescape_formula(name) for name in self.rows.header]
        header = ["p_" + unescape_formula(n[2:]) if n[:2] == "p_" else n for n in header]
        self.columns = {
            name: [unescape_formula(cell) for cell in self.rows.column(k)]
            for k, name in enumerate(header)
        }
        self._check_header(header)

    def read(self, name: str) -> tuple[Predictions, int | None]:
        """Give the predictions by this name, and the number of folds, where they are named."""
        self._check_utterances()
        self._check_known()
        present = self._parse("present", {"1": True, "0": False}) or [True] * len(self)
        proba = self._read_proba()
        codes = {name: code for code, name in enumerate(self.frame.classes)}
        predicted = self._parse("predicted", codes)
        n_folds = self._check_folds()
        self.problems.raise_any()
        order = np.argsort(np.array(self.columns["utterance"]))
        proba = proba[order]
        table = replace(
            self.frame,
            system=name,
            present=np.array(present)[order],
            proba=proba,
            y_pred=proba.argmax(axis=1) if predicted is None else np.array(predicted)[order],
        )
        return table, n_folds

    def __len__(self) -> int:
        return len(self.rows.numbers)

    def _check_header(self, header: Sequence[str]) -> None:
        """Refuse columns that are missing, unknown or there twice."""
        expected = [f"p_{name}" for name in self.frame.classes]
        known, given = {*_COLUMNS, *expected}, [n for n in header if n[:2] == "p_"]
        if twice := [name for name, n in Counter(header).items() if n > 1]:
            self.problems.refuse(f"Several columns are called {twice[0]!r}.")
        if "utterance" not in header:
            self.problems.refuse(
                "There is no column 'utterance'; expected it beside 'predicted' or columns "
                f"{', '.join(expected)}."
            )
        if unknown := [name for name in header if name not in known]:
            self.problems.refuse(
                f"Unknown columns {', '.join(map(repr, unknown))}; the classes of this study "
                f"are {', '.join(self.frame.classes)}, and expected columns are "
                f"{', '.join((*_COLUMNS, *expected))}."
            )
        if given and set(given) != set(expected):
            lacking = [name for name in expected if name not in given]
            self.problems.refuse(f"Columns {', '.join(lacking)} are missing.")
        if not given and "predicted" not in header:
            self.problems.refuse(
                f"There is neither a column 'predicted' nor {', '.join(expected)}."
            )
        systems = list(dict.fromkeys(self.columns.get("system", ())))
        if len(systems) > 1:
            self.problems.refuse(
                f"The file holds {len(systems)} systems ({', '.join(systems)}); expected one: "
                "keep the rows of the system that is meant."
            )

    def _check_utterances(self) -> None:
        """Refuse a row too many or too few: every system is scored on the same rows."""
        numbers: defaultdict[str, list[int]] = defaultdict(list)
        for name, number in zip(self.columns["utterance"], self.rows.numbers, strict=True):
            numbers[name].append(number)
        expected = set(self.frame.utterances.tolist())
        twice = [f"{n!r} (rows {_join(map(str, r))})" for n, r in numbers.items() if len(r) > 1]
        extra = [f"{n!r} (row {r[0]})" for n, r in numbers.items() if n not in expected]
        lacking = [repr(name) for name in sorted(expected - numbers.keys())]
        for found, fault in (
            (twice, "utterances have several rows"),
            (extra, "utterances are not tested in this study"),
            (lacking, f"of {len(expected)} tested utterances have no row"),
        ):
            if found:
                self.problems.add(
                    f"{len(found)} {fault}: {_join(found)}; expected one row for each tested "
                    "utterance."
                )
        self.problems.raise_any()

    def _check_known(self) -> None:
        """Refuse labels, speakers or sessions that are not the study's."""
        frame = self.frame
        truth = {
            "label": [frame.classes[code] for code in frame.labels.tolist()],
            "speaker": frame.speakers.tolist(),
            "session": [] if frame.sessions is None else frame.sessions.tolist(),
        }
        for column, values in truth.items():
            if column not in self.columns or not values:
                continue
            right = dict(zip(frame.utterances.tolist(), values, strict=True))
            for row, cell in enumerate(self.columns[column]):
                name = self.columns["utterance"][row]
                if cell != right[name]:
                    self._add(row, column, f"{cell!r} of {name!r} is {right[name]!r} here.")

    def _parse(self, column: str, values: Mapping[str, Any]) -> list[Any] | None:
        """Look up the cells of a column; None where there is no such column."""
        if column not in self.columns:
            return None
        for row, cell in enumerate(self.columns[column]):
            if cell not in values:
                self._add(row, column, f"Got {cell!r}; expected one of {', '.join(values)}.")
        return [values.get(cell) for cell in self.columns[column]]

    def _read_proba(self) -> NDArray[np.float64]:
        """Read the probabilities, each row divided by its sum; NaN without such columns."""
        names = [f"p_{name}" for name in self.frame.classes]
        proba = np.full((len(self), len(names)), np.nan)
        cells = [self.columns[name] for name in names if name in self.columns]
        if not any(cell for column in cells for cell in column) and "predicted" in self.columns:
            return proba  # so a study of the toolkit writes a system without probabilities
        for code, column in enumerate(cells):
            for row, cell in enumerate(column):
                value = _to_number(cell)
                if not 0 <= value <= 1:
                    self._add(row, names[code], f"Got {cell!r}; expected a number from 0 to 1.")
                proba[row, code] = value
        totals = proba.sum(axis=1)
        for row in np.flatnonzero(np.abs(totals - 1) > _ROUNDING).tolist():
            text = f"The probabilities sum to {totals[row]:.6g}; expected 1 within {_ROUNDING}."
            self._add(row, names[0], text)
        rounded = np.abs(totals - 1) > 1e-6  # as exact as tables of predictions are
        if rounded.any():
            logger.info(
                "%s: the probabilities of %d rows were divided by their sums, which rounding "
                "moved from 1.",
                self.problems.source,
                rounded.sum(),
            )
            proba[rounded] /= totals[rounded, None]
        return proba

    def _check_folds(self) -> int | None:
        """Refuse folds that test one held-out group in several: other folds trained on it."""
        if "fold" not in self.columns:
            return None
        groups = dict(
            zip(
                self.frame.utterances.tolist(),
                self.frame.groups(self.grouping).tolist(),
                strict=True,
            )
        )
        tested: dict[str, dict[str, None]] = {}
        for row, fold in enumerate(self.columns["fold"]):
            if not fold:
                self._add(row, "fold", "The fold is empty; expected the fold that tested it.")
            tested.setdefault(groups[self.columns["utterance"][row]], {})[fold] = None
        split = {group: list(folds) for group, folds in tested.items() if len(folds) > 1}
        for group, folds in list(split.items())[:1]:
            self.problems.add(
                f"{len(split)} {self.grouping}s are tested in several folds, first {group!r} "
                f"in {_join(folds)}: a model of each fold was trained on that "
                f"{self.grouping}'s other utterances, and this study holds out whole "
                f"{self.grouping}s.",
                column="fold",
            )
        return len(set(self.columns["fold"]))

    def _add(self, row: int, column: str, text: str) -> None:
        self.problems.add(text, row=self.rows.numbers[row], column=column)


def _to_number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _join(found: Any) -> str:
    names = list(found)
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
