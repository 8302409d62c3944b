"""A table of recorded utterances, checked once: ids, labels, speakers, sessions, paths."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data.cells import check_cells, drop_empty_columns
from toolkit.data.corpora import GENERATED_MARKER
from toolkit.data.labels import make_classes
from toolkit.data.modalities import choose_modalities, find_modalities, locate_files
from toolkit.data.paths import FeatureFolder
from toolkit.data.problems import Problems
from toolkit.data.roles import check_header, check_required, find_roles
from toolkit.data.rows import read_rows
from toolkit.data.speakers import (
    check_groups,
    check_outer,
    read_people,
    warn_of_lookalikes,
    warn_of_speakers,
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
