"""The table of utterances, read and checked: ids, classes, speakers, sessions, paths."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data.corpora import GENERATED_MARKER
from toolkit.data.csv_table import Problems, Rows, read_rows
from toolkit.data.feature_files import (
    FeatureFolder,
    choose_modalities,
    find_modalities,
    locate_files,
    warn_of_files,
)
from toolkit.data.labels import make_classes
from toolkit.data.roles import (
    check_cells,
    check_header,
    check_required,
    drop_empty_columns,
    find_roles,
    name_modality,
)
from toolkit.data.speakers import (
    People,
    check_groups,
    check_outer,
    read_people,
    warn_of_lookalikes,
    warn_of_speakers,
)

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """The utterances of a study, sorted by id, with their speakers and feature files.

    Arrays have one entry per utterance and are read-only.

    Parameters
    ----------
    source : str
        Name of the table.
    root : Path
        Folder of the table; all feature files lie below it.
    modalities : tuple of str
        In the order of their columns.
    classes, codes : tuple of str
        Name and code of each class, in the order of the codes: as numbers where all are
        integers, else by code point. The name of a class without one is its code.
    utterances : ndarray of str, shape (n,)
        Ids, each once, sorted by code point.
    labels : ndarray of int64, shape (n,)
        Class, as a position in `classes`.
    speakers : ndarray of str, shape (n,)
        Speaker.
    sessions, dialogues, splits : ndarray of str, shape (n,), or None
        A split is ``"train"``, ``"test"`` or another part; None where unknown.
    paths : mapping of str to tuple of (Path or None)
        Feature file of each utterance in each modality; None where the modality is missing.
    ignored : tuple of str
        Columns without a role.
    excluded : mapping of str to int
        Number of utterances of each excluded class.
    merged : mapping of str to str
        Target of each merged class.
    warnings : tuple of str
        Sentences about the table for the reader of the results.
    generated : bool
        Whether :func:`toolkit.data.make_corpus` made the recordings.
    absent : mapping of str to int
        Number of files per modality that do not exist, and count as missing.
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
    excluded: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    merged: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    warnings: tuple[str, ...] = ()
    generated: bool = False
    absent: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
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

    def groups(self, kind: Literal["speaker", "session"]) -> NDArray[np.str_]:
        """Return the group of each utterance.

        Parameters
        ----------
        kind : {"speaker", "session"}
            Kind of group.

        Returns
        -------
        ndarray of str, shape (n,)
            Name of its group.

        Raises
        ------
        ValueError
            If the kind is neither, or the sessions are unknown.
        """
        if kind == "speaker":
            return self.speakers
        if kind != "session":
            raise ValueError(f"Groups are made by 'speaker' or 'session', not by {kind!r}.")
        if self.sessions is None:
            raise ValueError(f"{self.source} has no sessions; group by speaker instead.")
        return self.sessions

    def digest(self) -> str:
        """Hash the records of the utterances, whatever the order and place of the table.

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
        # Lists in JSON, since a name may contain any separator of plain text.
        lines = [json.dumps(row) for row in sorted(zip(*columns, strict=True))]
        text = "\n".join([json.dumps(self.classes), *lines])
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def read_manifest(
    path: Path | str,
    *,
    columns: Mapping[str, str] = _EMPTY,
    label: str | None = None,
    classes: Sequence[str] = (),
    merge: Mapping[str, str] = _EMPTY,
    outer: str = "speaker",
    missing: Literal["refuse", "allow"] = "refuse",
    modalities: Sequence[str] = (),
) -> Manifest:
    """Read and check a table of utterances.

    Every cell is read as text, so that speaker ``01`` stays ``01`` and ``NA`` is a name.

    Parameters
    ----------
    path : Path or str
        CSV file in UTF-8, one row per utterance, one column of paths per modality.
    columns : mapping of str to str, default={}
        Header of the column of a role (a key of :data:`toolkit.data.roles.ROLES`), if unusual.
    label : str, optional
        Header of the label column.
    classes : sequence of str, default=()
        Names or codes of the classes to keep, in any order; all by default.
    merge : mapping of str to str, default={}
        Class (name or code) and the class to merge it into, before `classes` applies.
    outer : str, default="speaker"
        Groups that the outer folds hold out: ``"speaker"``, ``"session"``, ``"split"``, or a
        number of groups of speakers, at least three.
    missing : {"refuse", "allow"}, default="refuse"
        Whether a file that does not exist counts as a missing modality, like an empty cell.
    modalities : sequence of str, default=()
        Modalities to read, by any of their names; all by default.

    Returns
    -------
    Manifest
        The utterances sorted by id.

    Raises
    ------
    FileNotFoundError
        If the table does not exist.
    ManifestError
        With every problem of the table and of the options.
    """
    path = Path(path)
    held_out = check_outer(outer)
    if missing not in {"refuse", "allow"}:
        raise ValueError(f"missing is {missing!r}; expected 'refuse' or 'allow'.")
    problems = Problems(path.name)
    warnings = problems.warnings
    rows = read_rows(path, problems)
    check_header(rows)
    roles = find_roles(rows, columns=columns, label=label)
    found = find_modalities(rows, roles)
    # Listed before empty columns are dropped: those have a role, though no values.
    ignored = [
        name or f"(column {position + 1})"
        for position, name in enumerate(rows.header)
        if position not in {*roles.values(), *found.values()}
    ]
    roles = drop_empty_columns(rows, roles)
    grouped = make_classes(
        rows.column(roles["label"]) if "label" in roles else (),
        rows.column(roles["label_name"]) if {"label", "label_name"} <= roles.keys() else None,
        rows.numbers,
        problems,
        select=classes,
        merge=merge,
    )
    kept = [
        i for i in range(len(rows.cells)) if "label" not in roles or grouped.positions[i] >= 0
    ]
    people = _check_rows(rows, roles, kept, needed=str(held_out), warnings=warnings)
    excused = {
        *columns,
        *(["label"] if label is not None else []),
        *(["speaker"] if people.speakers else []),
    }
    check_required(rows, roles, excused=excused)
    # Broken rows may belong to the groups that seem to be missing.
    if people.speakers and not rows.n_broken:
        check_groups(held_out, people, problems)
    chosen = choose_modalities(modalities, found, problems)
    located = _locate(path, rows, roles, kept, modalities=chosen, missing=missing)

    names = [grouped.names[grouped.positions[i]] for i in kept]
    warn_of_lookalikes(people.speakers, "speakers", warnings)
    warn_of_lookalikes(names, "classes", warnings)
    warn_of_speakers(people.speakers, names, warnings)
    if rows.blank:
        warnings.append(f"{len(rows.blank):,} rows hold nothing but commas and were skipped.")
    return Manifest(
        **located,
        classes=grouped.names,
        codes=grouped.codes,
        labels=np.array([grouped.positions[i] for i in kept], dtype=np.int64),
        speakers=np.array(people.speakers),
        sessions=_optional(people.sessions),
        dialogues=_optional(people.dialogues),
        splits=_optional(people.splits),
        ignored=tuple(ignored),
        excluded=grouped.excluded,
        merged=grouped.merged,
        warnings=tuple(warnings),
        available=tuple(found),
    )


def read_unlabelled(
    path: Path | str,
    modalities: Sequence[str],
    *,
    columns: Mapping[str, str] = _EMPTY,
    missing: Literal["refuse", "allow"] = "refuse",
) -> Manifest:
    """Read and check a table of utterances without labels.

    Every label is -1, and an unknown speaker is empty. Each modality must have a column, whose
    cells may be empty. Raises as :func:`read_manifest`.
    """
    path = Path(path)
    problems = Problems(path.name)
    warnings = problems.warnings
    rows = read_rows(path, problems)
    check_header(rows)
    all_roles = find_roles(rows, columns=columns, label=None)
    found = _find_needed(rows, all_roles, modalities)
    roles = {role: all_roles[role] for role in all_roles if role in {"utterance", "speaker"}}
    check_required(rows, roles, excused={*columns, "label", "speaker"})
    kept = list(range(len(rows.cells)))
    # Sessions and dialogues play no part here, so warnings about them are dropped.
    people = _check_rows(rows, roles, kept, needed="speaker", warnings=[])
    located = _locate(path, rows, roles, kept, modalities=found, missing=missing)
    if not people.speakers:
        warnings.append(
            "No column gives the speaker: whether a speaker was in training is unknown."
        )
    elif "speaker" not in roles:
        warnings.append("No column gives the speaker: read from the utterance ids.")
    return Manifest(
        **located,
        classes=(),
        codes=(),
        labels=np.full(len(kept), -1, dtype=np.int64),
        speakers=np.array(people.speakers or [""] * len(kept)),
        sessions=None,
        dialogues=None,
        splits=None,
        warnings=tuple(warnings),
        available=tuple(found),
    )


def _check_rows(
    rows: Rows, roles: Mapping[str, int], kept: list[int], *, needed: str, warnings: list[str]
) -> People:
    """Sort the kept rows by utterance, check their cells, and read speakers and sessions."""
    cells = {role: rows.column(position) for role, position in roles.items()}
    if "utterance" in cells:
        kept.sort(key=cells["utterance"].__getitem__)
    check_cells(rows, roles, kept, needed=needed)
    return read_people(cells, kept, warnings, needed=needed)


def _locate(
    path: Path,
    rows: Rows,
    roles: Mapping[str, int],
    kept: Sequence[int],
    *,
    modalities: Mapping[str, int],
    missing: str,
) -> dict[str, Any]:
    """Locate the feature files, raise all problems, and return the fields of a manifest."""
    folder = FeatureFolder(path.absolute().parent.resolve())
    paths: dict[str, tuple[Path | None, ...]] = {}
    absent: dict[str, int] = {}
    for modality, position in modalities.items():
        paths[modality], n_absent = locate_files(
            rows,
            kept,
            position,
            folder,
            utterance=roles.get("utterance"),
            allow_missing=missing == "allow",
        )
        warn_of_files(modality, paths[modality], n_absent, rows.problems.warnings)
        if n_absent:
            absent[modality] = n_absent
    rows.problems.raise_any()
    return {
        "source": path.name,
        "root": folder.root,
        "modalities": tuple(paths),
        "utterances": np.array([rows.cells[i][roles["utterance"]] for i in kept]),
        "paths": paths,
        "generated": (folder.root / GENERATED_MARKER).is_file(),
        "absent": absent,
    }


def _optional(values: Sequence[str] | None) -> NDArray[np.str_] | None:
    return None if values is None else np.array(values)


def _find_needed(rows: Rows, roles: Mapping[str, int], needed: Sequence[str]) -> dict[str, int]:
    """Find the column of every needed modality, even if all of its cells are empty."""
    unread = Problems(rows.problems.source)
    found = find_modalities(replace(rows, problems=unread), roles)
    rows.problems.warnings += unread.warnings
    for position, header in enumerate(rows.header):
        if position not in roles.values() and not any(rows.column(position)):
            try:
                found.setdefault(name_modality(header), position)
            except ValueError:  # an empty column whose header cannot name a modality
                continue
    for name in needed:
        if name not in found:
            names = ", ".join(found) or "none"
            rows.problems.add(
                f"No column lists the files of modality {name!r}, which the models were "
                f"trained on (found: {names}). Add the column; its cells may be empty where "
                "an utterance lacks the modality."
            )
    if all(name in found for name in needed):
        unread.raise_any()
    return {name: found[name] for name in needed if name in found}
