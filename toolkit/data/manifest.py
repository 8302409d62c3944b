"""A table of recorded utterances, checked once: ids, labels, speakers, sessions, paths."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data.corpora import GENERATED_MARKER
from toolkit.data.csv_table import CONTROL, Problems, Rows, read_rows
from toolkit.data.feature_files import (
    FeatureFolder,
    choose_modalities,
    find_modalities,
    locate_files,
)
from toolkit.data.roles import REQUIRED, check_header, check_required, find_roles, name_modality
from toolkit.data.speakers import (
    check_groups,
    check_outer,
    read_people,
    warn_of_lookalikes,
    warn_of_speakers,
)

INTEGER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a study and the class of every row.

    - names: Name of each class, its code where it has no name.
    - codes: Code of each class, in the order of :func:`order_codes`.
    - positions: Class of each row, as a position in `names`; -1 where the row is left out.
    - excluded: Rows of each class that is left out.
    - merged: Class that each merged class became part of.
    """

    names: tuple[str, ...]
    codes: tuple[str, ...]
    positions: tuple[int, ...]
    excluded: dict[str, int]
    merged: dict[str, str]


def order_codes(codes: Sequence[str]) -> list[str]:
    """Sort label codes: as numbers where all are integers, else by code point.

    Examples
    --------
    >>> order_codes(["10", "9", "01", "9"])
    ['01', '9', '10']
    >>> order_codes(["10", "9", "other"])
    ['10', '9', 'other']
    """
    distinct = set(codes)
    if all(INTEGER.fullmatch(code) for code in distinct):
        return sorted(distinct, key=lambda code: (int(code), code))
    return sorted(distinct)


def make_classes(
    labels: Sequence[str],
    names: Sequence[str] | None,
    numbers: Sequence[int],
    problems: Problems,
    *,
    select: Sequence[str],
    merge: Mapping[str, str],
) -> Classes:
    """Turn the label of every row into one of the study's classes."""
    n_problems = len(problems)
    code_order = order_codes([label for label in labels if label])
    name_of = {code: code for code in code_order}
    if names is not None:
        name_of |= _name_codes(labels, names, numbers, problems)
    into = _resolve_merges(merge, name_of, problems)
    kept = _resolve_selection(select, into, name_of, problems)

    codes = tuple(code for code in code_order if code in kept)
    if len(codes) < 2 and code_order and len(problems) == n_problems:
        only = f", {name_of[codes[0]]!r}" if codes else ""
        problems.add(
            f"A study needs at least two classes, but there is {len(codes)}{only}; the labels "
            f"there are {', '.join(map(repr, name_of.values()))}."
        )
    position = {code: i for i, code in enumerate(codes)}
    left_out = Counter(
        label for label in labels if label and into.get(label, label) not in kept
    )
    return Classes(
        names=tuple(name_of[code] for code in codes),
        codes=codes,
        positions=tuple(position.get(into.get(label, label), -1) for label in labels),
        excluded={name_of[code]: left_out[code] for code in code_order if left_out[code]},
        merged={name_of[source]: name_of[target] for source, target in into.items()},
    )


def _name_codes(
    labels: Sequence[str],
    names: Sequence[str],
    numbers: Sequence[int],
    problems: Problems,
) -> dict[str, str]:
    name_of: dict[str, str] = {}
    code_of: dict[str, str] = {}
    first_row: dict[tuple[str, str], int] = {}
    for code, name, number in zip(labels, names, numbers, strict=True):
        # Each pair is judged once, at its first row: a thousand rows can share one mistake.
        if not code or not name or (code, name) in first_row:
            continue
        first_row[code, name] = number
        if name_of.setdefault(code, name) != name:
            other = name_of[code]
            problems.add(
                f"Code {code!r} is called {name!r} here and {other!r} in row "
                f"{first_row[code, other]:,}; a code needs one name.",
                row=number,
            )
        elif code_of.setdefault(name, code) != code:
            other = code_of[name]
            problems.add(
                f"Code {code!r} is called {name!r} here, as is code {other!r} in row "
                f"{first_row[other, name]:,}; a name needs one code (--merge joins classes).",
                row=number,
            )
    return name_of


def _resolve(
    asked: str, name_of: Mapping[str, str], problems: Problems, *, option: str
) -> str | None:
    meant = [code for code, name in name_of.items() if asked.strip() in {code, name}]
    if len(meant) == 1:
        return meant[0]
    if meant:
        problems.add(
            f"{option} names {asked!r}, which is the name of one class and the code of "
            "another; use the other word for the class that is meant."
        )
        return None
    known = [*name_of.values()]
    nearest = get_close_matches(asked, known, n=1)
    problems.add(
        f"{option} names {asked!r}, which is no class;"
        + (f" did you mean {nearest[0]!r}?" if nearest else "")
        + f" the classes are {', '.join(map(repr, known))}."
    )
    return None


def _resolve_merges(
    merge: Mapping[str, str], name_of: Mapping[str, str], problems: Problems
) -> dict[str, str]:
    into: dict[str, str] = {}
    for source, target in merge.items():
        codes = [
            _resolve(name, name_of, problems, option="--merge") for name in (source, target)
        ]
        if codes[0] is None or codes[1] is None:
            continue
        if codes[0] == codes[1]:
            problems.add(f"--merge joins {source!r} to itself; name two classes.")
        else:
            into[codes[0]] = codes[1]
    chained = [target for target in dict.fromkeys(into.values()) if target in into]
    for target in chained:
        problems.add(
            f"--merge joins other classes to {name_of[target]!r}, which is itself merged "
            f"into {name_of[into[target]]!r}; join them to the class that is to be left."
        )
    return {} if chained else into


def _resolve_selection(
    select: Sequence[str],
    into: Mapping[str, str],
    name_of: Mapping[str, str],
    problems: Problems,
) -> set[str]:
    kept = set()
    for asked in select:
        code = _resolve(asked, name_of, problems, option="--classes")
        if code is not None and code in into:
            problems.add(
                f"--classes names {asked!r}, which --merge joins to {name_of[into[code]]!r}; "
                "name that one."
            )
        kept.add(code)
    if select and None not in kept:
        return {code for code in kept if code is not None}
    # A choice that failed leaves nothing out: one mistake is not to be followed by others.
    return {code for code in name_of if code not in into}


MAX_LENGTH = 200
"""Longer cells are no names, and an array stores every name at the size of the longest."""


def drop_empty_columns(
    rows: Rows, roles: Mapping[str, int], warnings: list[str]
) -> dict[str, int]:
    """Leave out columns that could do without their role and hold nothing."""
    left = dict(roles)
    for role, position in roles.items():
        if role not in REQUIRED and not any(rows.column(position)):
            warnings.append(f"Column {rows.header[position]!r} is empty and was not used.")
            del left[role]
    return left


def check_cells(
    rows: Rows,
    roles: Mapping[str, int],
    kept: Sequence[int],
    problems: Problems,
    *,
    needed: str,
) -> None:
    """Note cells that are empty, can be no name, or repeat an utterance's id."""
    every = range(len(rows.cells))
    for role, position in roles.items():
        may_be_empty = role not in {*REQUIRED, "label_name", needed}
        for i in every if role in {"utterance", "label", "label_name"} else kept:
            cell = rows.cells[i][position]
            if not cell and not may_be_empty:
                text = f"the cell is empty; every row needs its {role.replace('_', ' ')}."
            elif CONTROL.search(cell):
                text = f"{cell[:MAX_LENGTH]!r} holds a control character; keep to one line."
            elif len(cell) > MAX_LENGTH:
                text = (
                    f"{len(cell):,} characters cannot name a {role}; at most {MAX_LENGTH} can."
                )
            else:
                continue
            problems.add(text, row=rows.numbers[i], column=rows.header[position])
    if "utterance" in roles:
        _check_repeated(rows, roles["utterance"], problems)


def _check_repeated(rows: Rows, position: int, problems: Problems) -> None:
    first_row: dict[str, int] = {}
    for number, utterance in zip(rows.numbers, rows.column(position), strict=True):
        if utterance and first_row.setdefault(utterance, number) != number:
            problems.add(
                f"{utterance!r} is in row {first_row[utterance]:,} already; every row needs "
                "an id of its own.",
                row=number,
                column=rows.header[position],
            )


NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """The utterances of a study, sorted by id, with who said them and where their features are.

    Arrays have one entry an utterance and cannot be written to.

    Parameters
    ----------
    source : str
        Name of the file that the utterances were read from.
    root : Path
        Folder of that file; all features lie below it.
    modalities : tuple of str
        In the order of their columns.
    classes, codes : tuple of str
        Name and code of each class, in the order of the codes: as numbers where all are
        integers, else by code point. A class without a name goes by its code.
    utterances : ndarray of str, shape (n,)
        Ids, each once, sorted by code point.
    labels : ndarray of int64, shape (n,)
        Class, as a position in `classes`.
    speakers : ndarray of str, shape (n,)
        Who speaks.
    sessions, dialogues, splits : ndarray of str, shape (n,), or None
        Session, dialogue, and part (``"train"``, ``"test"`` or another), where they are told.
    paths : mapping of str to tuple of (Path or None)
        Feature file of each utterance in each modality; None where the modality is missing.
    ignored : tuple of str
        Columns that play no role.
    excluded : mapping of str to int
        Utterances of each class that was left out.
    merged : mapping of str to str
        Class that each merged class became part of.
    warnings : tuple of str
        What a reader of the results should know about the table.
    generated : bool
        Whether the recordings were made up by :func:`toolkit.data.make_corpus`.
    absent : mapping of str to int
        Files of each modality that the table names but that do not exist; these utterances
        count as missing the modality.
    available : tuple of str
        All modalities of the table, read or not, in the order of their columns.
    """

    source: str
    root: Path
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    codes: tuple[str, ...]
    utterances: NDArray[np.str_]
    labels: NDArray[np.int64]
    speakers: NDArray[np.str_]
    sessions: NDArray[np.str_] | None
    dialogues: NDArray[np.str_] | None
    splits: NDArray[np.str_] | None
    paths: Mapping[str, tuple[Path | None, ...]]
    ignored: tuple[str, ...] = ()
    excluded: Mapping[str, int] = field(default_factory=lambda: NOTHING)
    merged: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    warnings: tuple[str, ...] = ()
    generated: bool = False
    absent: Mapping[str, int] = field(default_factory=lambda: NOTHING)
    available: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (entry.name for entry in fields(self)):
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                value = value.copy()
                value.setflags(write=False)
                object.__setattr__(self, name, value)
                if value.shape != (len(self.utterances),):
                    raise ValueError(
                        f"{name} has shape {value.shape}; expected ({len(self.utterances)},), "
                        "one entry an utterance."
                    )
            elif isinstance(value, Mapping):
                object.__setattr__(self, name, MappingProxyType(dict(value)))
        for modality, files in self.paths.items():
            if len(files) != len(self.utterances):
                raise ValueError(
                    f"Modality {modality!r} has {len(files)} paths; expected "
                    f"{len(self.utterances)}, one an utterance."
                )

    def __reduce__(self) -> tuple[type["Manifest"], tuple[Any, ...]]:
        # Read-only mappings cannot be pickled, and pickled arrays come back writable.
        values = (getattr(self, entry.name) for entry in fields(self))
        return Manifest, tuple(
            dict(value) if isinstance(value, Mapping) else value for value in values
        )

    def __len__(self) -> int:
        return len(self.utterances)

    def groups(self, unit: Literal["speaker", "session"]) -> NDArray[np.str_]:
        """Return the group of each utterance.

        Parameters
        ----------
        unit : {"speaker", "session"}
            What makes a group.

        Returns
        -------
        ndarray of str, shape (n,)
            Name of the group of each utterance.

        Raises
        ------
        ValueError
            If the unit is neither, or the table tells no sessions.
        """
        if unit == "speaker":
            return self.speakers
        if unit != "session":
            raise ValueError(f"Groups are made by 'speaker' or 'session', not by {unit!r}.")
        if self.sessions is None:
            raise ValueError(f"{self.source} tells no sessions; group by speaker instead.")
        return self.sessions

    def digest(self) -> str:
        """Hash what is recorded of each utterance, whatever the order and place of the table.

        Returns
        -------
        str
            sha256, in hexadecimal, of the classes in their order and of id, class, speaker,
            session and split of each utterance. Feature files are no part of it.
        """
        columns = [
            self.utterances.tolist(),
            [self.classes[label] for label in self.labels],
            self.speakers.tolist(),
            *(
                [None] * len(self) if values is None else values.tolist()
                for values in (self.sessions, self.splits)
            ),
        ]
        # Lists in JSON, since any separator of plain text could stand within a name.
        lines = [json.dumps(row) for row in sorted(zip(*columns, strict=True))]
        text = "\n".join([json.dumps(self.classes), *lines])
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def read_manifest(
    path: Path | str,
    *,
    columns: Mapping[str, str] = NOTHING,
    label: str | None = None,
    classes: Sequence[str] = (),
    merge: Mapping[str, str] = NOTHING,
    outer: str = "speaker",
    missing: Literal["refuse", "allow"] = "refuse",
    modalities: Sequence[str] = (),
) -> Manifest:
    """Read and check a table of utterances.

    Everything is read as text, so that speaker ``01`` stays ``01`` and ``NA`` is a name.

    Parameters
    ----------
    path : Path or str
        CSV file in UTF-8, one row an utterance, one column of paths a modality.
    columns : mapping of str to str, default={}
        Header of the column that plays a role (a key of :data:`toolkit.data.roles.ROLES`),
        where it cannot be told from its name.
    label : str, optional
        Header of the label column.
    classes : sequence of str, default=()
        Names or codes of the classes to keep, in any order; all by default.
    merge : mapping of str to str, default={}
        Class (name or code) and the class that it becomes part of, before `classes` applies.
    outer : str, default="speaker"
        What will be held out: ``"speaker"``, ``"session"``, ``"split"``, or a number of
        groups of speakers. There must be at least three.
    missing : {"refuse", "allow"}, default="refuse"
        Whether a file that does not exist may be taken for a missing modality, as an empty
        cell always is.
    modalities : sequence of str, default=()
        Modalities to read, by any of their names; all by default. The files of others need
        not be there.

    Returns
    -------
    Manifest
        The utterances sorted by id.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        With everything that is wrong with the table or with what was asked of it.
    """
    path = Path(path)
    unit = check_outer(outer)
    if missing not in {"refuse", "allow"}:
        raise ValueError(f"missing is {missing!r}; expected 'refuse' or 'allow'.")
    problems, warnings = Problems(path.name), list[str]()
    rows = read_rows(path, problems)
    check_header(rows.header, problems)
    roles = find_roles(rows.header, problems, columns=columns, label=label)
    found = find_modalities(rows, roles, problems, warnings)
    ignored = [
        name or f"(column {position + 1})"
        for position, name in enumerate(rows.header)
        if position not in {*roles.values(), *found.values()}
    ]
    roles = drop_empty_columns(rows, roles, warnings)
    cells = {role: rows.column(position) for role, position in roles.items()}

    grouped = make_classes(
        cells.get("label", ()),
        cells.get("label_name") if "label" in cells else None,
        rows.numbers,
        problems,
        select=classes,
        merge=merge,
    )
    kept = [
        i for i in range(len(rows.cells)) if "label" not in cells or grouped.positions[i] >= 0
    ]
    if "utterance" in cells:
        kept.sort(key=cells["utterance"].__getitem__)
    check_cells(rows, roles, kept, problems, needed=str(unit))
    people = read_people(cells, kept, warnings, needed=str(unit))
    excused = {
        *columns,
        *(["label"] if label is not None else []),
        *(["speaker"] if people.speakers else []),
    }
    check_required(rows.header, roles, problems, excused=excused)
    if people.speakers and not rows.n_broken:
        check_groups(unit, people, problems)

    folder = FeatureFolder(path.absolute().parent.resolve())
    chosen = choose_modalities(modalities, found, problems)
    allow_missing = missing == "allow"
    paths, absent = locate_files(
        rows,
        kept,
        chosen,
        folder,
        problems,
        utterance=roles.get("utterance"),
        allow_missing=allow_missing,
        warnings=warnings,
    )
    problems.raise_any()

    names = [grouped.names[grouped.positions[i]] for i in kept]
    warn_of_lookalikes(people.speakers, "speakers", warnings)
    warn_of_lookalikes(names, "classes", warnings)
    warn_of_speakers(people.speakers, names, warnings)
    if rows.blank:
        warnings.append(f"{len(rows.blank):,} rows hold nothing but commas and were skipped.")
    return Manifest(
        source=path.name,
        root=folder.root,
        modalities=tuple(paths),
        classes=grouped.names,
        codes=grouped.codes,
        utterances=np.array([cells["utterance"][i] for i in kept]),
        labels=np.array([grouped.positions[i] for i in kept], dtype=np.int64),
        speakers=np.array(people.speakers),
        sessions=_optional(people.sessions),
        dialogues=_optional(people.dialogues),
        splits=_optional(people.splits),
        paths=paths,
        ignored=tuple(ignored),
        excluded=grouped.excluded,
        merged=grouped.merged,
        warnings=tuple(warnings),
        generated=(folder.root / GENERATED_MARKER).is_file(),
        absent=absent,
        available=tuple(found),
    )


def _optional(values: Sequence[str] | None) -> NDArray[np.str_] | None:
    return None if values is None else np.array(values)


UNLABELLED = -1
"""Label of an utterance whose class is not known."""


def read_unlabelled(
    path: Path | str,
    modalities: Sequence[str],
    *,
    columns: Mapping[str, str] = NOTHING,
    missing: Literal["refuse", "allow"] = "refuse",
) -> Manifest:
    """Read and check a table of utterances without labels.

    Parameters
    ----------
    path : Path or str
        CSV file as :func:`toolkit.data.read_manifest` takes it. A label column is not read,
        and a speaker column may be lacking.
    modalities : sequence of str
        Modalities that must each have a column; its cells may be empty.
    columns : mapping of str to str, default={}
        Header of the column that plays a role, where it cannot be told from its name.
    missing : {"refuse", "allow"}, default="refuse"
        Whether a file that does not exist may be taken for a missing modality.

    Returns
    -------
    Manifest
        The utterances sorted by id, without classes; every label is ``-1``, and the speaker
        is empty where none is told.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        With everything that is wrong with the table, modalities without a column included.
    """
    path = Path(path)
    problems, warnings = Problems(path.name), list[str]()
    rows = read_rows(path, problems)
    check_header(rows.header, problems)
    roles = find_roles(rows.header, problems, columns=columns, label=None)
    found = _find_needed(rows, roles, modalities, problems, warnings)
    told = {role: roles[role] for role in roles if role in {"utterance", "speaker"}}
    check_required(rows.header, told, problems, excused={*columns, "label", "speaker"})
    cells = {role: rows.column(position) for role, position in told.items()}
    kept = list(range(len(rows.cells)))
    if "utterance" in cells:
        kept.sort(key=cells["utterance"].__getitem__)
    check_cells(rows, told, kept, problems, needed="utterance")
    # Sessions and dialogues play no part here, so nothing is said of where they come from.
    people = read_people(cells, kept, [], needed="speaker")
    folder = FeatureFolder(path.absolute().parent.resolve())
    paths, absent = locate_files(
        rows,
        kept,
        found,
        folder,
        problems,
        utterance=told.get("utterance"),
        allow_missing=missing == "allow",
        warnings=warnings,
    )
    problems.raise_any()
    if not people.speakers:
        warnings.append(
            "No column tells the speaker: whether somebody was in training cannot be said."
        )
    elif "speaker" not in cells:
        warnings.append("No column tells the speaker: read from the utterance ids.")
    return Manifest(
        source=path.name,
        root=folder.root,
        modalities=tuple(paths),
        classes=(),
        codes=(),
        utterances=np.array([cells["utterance"][i] for i in kept]),
        labels=np.full(len(kept), UNLABELLED, dtype=np.int64),
        speakers=np.array(people.speakers or [""] * len(kept)),
        sessions=None,
        dialogues=None,
        splits=None,
        paths=paths,
        warnings=tuple(warnings),
        generated=(folder.root / GENERATED_MARKER).is_file(),
        absent=absent,
        available=tuple(found),
    )


def _find_needed(
    rows: Rows,
    roles: Mapping[str, int],
    needed: Sequence[str],
    problems: Problems,
    warnings: list[str],
) -> dict[str, int]:
    """Find the column of every modality, one without a single file included."""
    unread = Problems(problems.source)
    found = find_modalities(rows, roles, unread, warnings)
    for position, header in enumerate(rows.header):
        if position not in roles.values() and not any(rows.column(position)):
            try:
                found.setdefault(name_modality(header), position)
            except ValueError:  # a column of nothing that could name no modality
                continue
    for name in needed:
        if name not in found:
            there = ", ".join(found) or "none"
            problems.add(
                f"No column lists the files of modality {name!r}, which the models were "
                f"trained on (found: {there}). Add the column; its cells may be empty where "
                "an utterance lacks the modality."
            )
    if all(name in found for name in needed) and len(unread):
        unread.raise_any()
    return {name: found[name] for name in needed if name in found}
