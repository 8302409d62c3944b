"""The table of utterances, read and checked: ids, classes, speakers, sessions, paths."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data.corpora import GENERATED_MARKER
from toolkit.data.csv_table import Rows
from toolkit.data.feature_files import Sources, find_modalities, lists_files, locate_files
from toolkit.data.labels import Spellings, make_classes, unify_spellings
from toolkit.data.roles import TEXT_EXTRACTORS, Columns, find_columns
from toolkit.data.speakers import MIN_GROUPS, read_people

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_LABELS: Final = frozenset(("label", "label_name"))

HeldOut = Literal["speaker", "session", "speaker+content", "session+content"]
"""What folds hold out: a kind of group, and perhaps the content of its utterances."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Manifest:
    """The utterances of a study, sorted by id, with their speakers and feature files.

    Arrays have one entry per utterance and are read-only.

    Parameters
    ----------
    source : str
        Name of the table.
    root : Path
        Folder of the table; feature files lie below it, or below another that was allowed.
    modalities : tuple of str
        In the order of their columns.
    classes, codes : tuple of str
        Name and code of each class, in the order of the codes: as numbers where all are
        numbers, else by code point. The name of a class without one is its code.
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
    texts : mapping of str to tuple of str
        Transcript of each utterance in each modality whose features are made of them; empty
        where it is missing. The path is that of the table.
    traits : mapping of str to mapping of str to str
        Columns that group people, to the value of each speaker; empty where unknown.
    contents : ndarray of str, shape (n,), or None
        Script, scene or sentence of each utterance; None where unknown.
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
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _EMPTY)
    traits: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _EMPTY)
    contents: NDArray[np.str_] | None = None

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
                        "one entry per utterance."
                    )
            elif isinstance(value, Mapping):
                object.__setattr__(self, name, MappingProxyType(dict(value)))
        for modality, files in self.paths.items():
            if len(files) != len(self.utterances):
                raise ValueError(
                    f"Modality {modality!r} has {len(files)} paths; expected "
                    f"{len(self.utterances)}, one per utterance."
                )

    def __reduce__(self) -> tuple[type["Manifest"], tuple[Any, ...]]:
        # Read-only mappings cannot be pickled, and pickled arrays come back writable.
        values = (getattr(self, entry.name) for entry in fields(self))
        return Manifest, tuple(
            dict(value) if isinstance(value, Mapping) else value for value in values
        )

    def __len__(self) -> int:
        return len(self.utterances)

    def __repr__(self) -> str:
        return (
            f"<Manifest of {self.source}: {len(self):,} utterances, "
            f"{len(np.unique(self.speakers)):,} speakers, {len(self.classes)} classes "
            f"({', '.join(self.classes[:6])}{', ...' if len(self.classes) > 6 else ''}), "
            f"modalities {', '.join(self.modalities)}>"
        )

    def groups(self, kind: HeldOut) -> NDArray[np.str_]:
        """Return the group of each utterance.

        Parameters
        ----------
        kind : {"speaker", "session", "speaker+content", "session+content"}
            Kind of group.

        Returns
        -------
        ndarray of str, shape (n,) or (n, 2)
            Name of its group; with ``+content``, beside it ``content:`` and its content.

        Raises
        ------
        ValueError
            If the kind is another, or sessions or contents are unknown.
        """
        if kind in {"speaker+content", "session+content"}:
            if self.contents is None:
                raise ValueError(f"{self.source} has no content; leave +content out.")
            people = self.groups("session" if kind == "session+content" else "speaker")
            # Marked, since a group may have the name of a content.
            return np.stack([people, np.char.add("content:", self.contents)], axis=1)
        if kind == "speaker":
            return self.speakers
        if kind != "session":
            raise ValueError(f"Groups are made by 'speaker' or 'session', not by {kind!r}.")
        if self.sessions is None:
            raise ValueError(f"{self.source} has no sessions; group by speaker instead.")
        return self.sessions

    def speakers_between_sessions(self) -> tuple[str, ...]:
        """Name the speakers that occur in several sessions.

        Returns
        -------
        tuple of str
            Sorted; empty where each is in one.
        """
        pairs = np.unique(np.stack([self.speakers, self.groups("session")]), axis=1)
        names, counts = np.unique(pairs[0], return_counts=True)
        return tuple(names[counts > 1].tolist())

    def digest(self, *, content: bool = False) -> str:
        """Hash the records of the utterances, whatever the order and place of the table.

        Parameters
        ----------
        content : bool, default=False
            Whether the content counts. It decides numbers only where it is held out, and older
            studies of the same table knew none.

        Returns
        -------
        str
            sha256, in hexadecimal, of the classes in their order and of id, class, speaker,
            session, split (and content) of each utterance. Feature files are no part of it.
        """
        columns = [
            self.utterances.tolist(),
            [self.classes[label] for label in self.labels],
            self.speakers.tolist(),
            *(
                [None] * len(self) if values is None else values.tolist()
                for values in (self.sessions, self.splits)
            ),
            *([self.contents.tolist()] if content and self.contents is not None else []),
        ]
        # Lists in JSON, since a name may contain any separator of plain text.
        lines = [json.dumps(row) for row in sorted(zip(*columns, strict=True))]
        text = "\n".join([json.dumps(self.classes), *lines])
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def read_manifest(
    path: Any,
    *,
    columns: Mapping[str, str] = _EMPTY,
    label: str | None = None,
    classes: Sequence[str] = (),
    merge: Mapping[str, str] = _EMPTY,
    outer: str = "speaker",
    missing: Literal["refuse", "allow"] = "refuse",
    modalities: Sequence[str] = (),
    spellings: Spellings = "refuse",
    roots: Sequence[Path] = (),
    tables: Mapping[str, Path] = _EMPTY,
    frames_columns: Mapping[str, str] = _EMPTY,
    extract: Mapping[str, str] = _EMPTY,
    bins: Sequence[float] = (),
    by: Sequence[str] = (),
) -> Manifest:
    """Read and check a table of utterances.

    Every cell is read as text, so that speaker ``01`` stays ``01`` and ``NA`` is a name.

    Parameters
    ----------
    path : Path, str or DataFrame
        CSV file in UTF-8, one row per utterance, one column of paths per modality; or a table
        in memory, whose paths are relative to the current folder.
    columns : mapping of str to str, default={}
        Header of the column of a role (a key of :data:`toolkit.data.roles.ROLES`) or of a
        modality, if unusual.
    label : str, optional
        Header of the label column.
    classes : sequence of str, default=()
        Names or codes of the classes to keep, in any order; all by default.
    merge : mapping of str to str, default={}
        Class (name or code) and the class to merge it into, before `classes` applies.
    outer : str, default="speaker"
        Groups that the outer folds hold out: ``"speaker"``, ``"session"``, ``"split"``, or a
        number of groups of speakers, at least three; or one of these but the split with
        ``+content``, which holds content out as well.
    missing : {"refuse", "allow"}, default="refuse"
        Whether a file that does not exist counts as a missing modality, like an empty cell.
    modalities : sequence of str, default=()
        Modalities to read, by any of their names; all by default.
    spellings : {"refuse", "join", "keep"}, default="refuse"
        Treatment of speakers, sessions and labels that differ in spelling alone, such as
        ``1`` and ``1.0``: join takes them for one, by the commonest spelling.
    roots : sequence of Path, default=()
        Folders that feature files may lie below, beside that of the table.
    tables : mapping of str to Path, default={}
        Modality and its table of features, CSV, ARFF or Parquet, with a row per utterance.
    frames_columns : mapping of str to str, default={}
        Modality and its columns in such tables and in files of frames: numbers from 1, ranges
        and headers, as in ``2-40`` or ``F0,loudness``; all but ids and times by default.
    extract : mapping of str to str, default={}
        Modality and the extractor of its features from a column of recordings or words.
    bins : sequence of float, default=()
        Increasing edges of the classes that are made of numeric labels.
    by : sequence of str, default=()
        Headers of columns that group people; a person needs one value in all rows.

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
    held_out, holds_content = _check_outer(outer)
    needed = {str(held_out), *(["content"] if holds_content else [])}
    if missing not in {"refuse", "allow"}:
        raise ValueError(f"missing is {missing!r}; expected 'refuse' or 'allow'.")
    rows = Rows.read(path)
    problems, warnings = rows.problems, rows.problems.warnings
    table = Columns.find(
        rows, columns=columns, label=label, lists_files=lists_files, extracted=extract
    )
    rows = table.rows
    sources = Sources(tables, extract, frames_columns, roots, missing == "allow")
    found = find_modalities(table, sources)
    sounds = [name for name in {*found} & {*extract} if extract[name] not in TEXT_EXTRACTORS]
    spans = table.find_times().values() if sounds else ()
    # Listed before empty columns are dropped: those have a role, though no values.
    ignored = [
        name or f"(column {position + 1})"
        for position, name in enumerate(rows.header)
        if position not in {*table.roles.values(), *found.values(), *spans}
    ]
    table = table.without_empty()
    cells = table.cells()
    unify = partial(unify_spellings, spellings=spellings, problems=problems)
    for role in ("label", "label_name"):
        if role in cells and not bins:
            cells[role] = unify(cells[role], rows.numbers, role)
    grouped = make_classes(
        cells.get("label", ()),
        cells.get("label_name") if "label" in cells else None,
        rows.numbers,
        problems,
        select=classes,
        merge=merge,
        bins=bins,
        column=rows.header[table.roles["label"]] if "label" in cells else "label",
    )
    kept = table.sort_rows(
        i for i in range(len(rows.cells)) if "label" not in cells or grouped.positions[i] >= 0
    )
    for role in ("speaker", "session", *(["content"] if holds_content else [])):
        if role in cells:
            names = unify([cells[role][i] for i in kept], [rows.numbers[i] for i in kept], role)
            for i, name in zip(kept, names, strict=True):
                cells[role][i] = name
    people = read_people(cells, kept, warnings, needed=needed)
    traits = table.read_traits(by, kept, people.speakers, unify)
    key = "+".join(
        rows.header[table.roles[r]] for r in ("session", "speaker") if r in table.roles
    )
    excused = {*columns, *(["label"] if label is not None else [])}
    excused |= {"speaker"} if people.speakers else set()
    table.check(kept, needed=needed, excused=excused)
    # Broken rows may belong to the groups that seem to be missing.
    if people.speakers and not rows.n_broken:
        people.check_groups(held_out, problems, key=key)
        if holds_content:
            people.check_content(problems)
    located = _locate(table, kept, found, sources, select=modalities)
    people.warn([grouped.names[grouped.positions[i]] for i in kept], warnings, key=key)
    if rows.blank:
        warnings.append(f"{len(rows.blank):,} rows hold nothing but commas and were skipped.")
    return Manifest(
        **located,
        **grouped.take(kept),
        **people.as_arrays(),
        ignored=tuple(name for name in ignored if name not in traits),
        warnings=tuple(warnings),
        traits=traits,
    )


def read_unlabelled(
    path: Any,
    modalities: Sequence[str],
    *,
    columns: Mapping[str, str] = _EMPTY,
    usual: Mapping[str, str] = _EMPTY,
    any_label: bool = False,
    spellings: Spellings = "keep",
    bins: Sequence[float] = (),
    missing: Literal["refuse", "allow"] = "refuse",
    roots: Sequence[Path] = (),
    tables: Mapping[str, Path] = _EMPTY,
    frames_columns: Mapping[str, str] = _EMPTY,
    extract: Mapping[str, str] = _EMPTY,
) -> Manifest:
    """Read and check a table of utterances whose labels, if it has any, are not needed.

    A row without a label has -1, and one without a speaker an empty name. Each modality must
    have a column, whose cells may be empty. Options and errors are those of
    :func:`read_manifest`, but labels may be missing. `usual` are headers of the study, like
    `columns`, of which those count that the table has and that `columns` do not name. Without
    the study's label, another column holds labels only if `any_label` is True.
    """
    rows = Rows.read(path)
    taken = {at for name in columns.values() for at in find_columns(rows.header, name)}
    places = {role: find_columns(rows.header, name) for role, name in usual.items()}
    known = {role: usual[role] for role, at in places.items() if at and taken.isdisjoint(at)}
    columns = known | dict(columns)
    warnings = rows.problems.warnings
    table = Columns.find(
        rows, columns=columns, label=None, lists_files=lists_files, extracted=extract
    )
    table = _warn_of_lost(table, usual, columns, any_label=any_label)
    sources = Sources(tables, extract, frames_columns, roots, missing == "allow")
    found = find_modalities(table, sources, needed=modalities)
    cells = table.cells()
    labels = cells.get("label", cells.get("label_name", [""] * len(rows.cells)))
    names = cells.get("label_name") if "label" in cells else None
    options: Any = {"select": (), "merge": {}, "bins": bins, "learnt": False}
    grouped = make_classes(labels, names, rows.numbers, rows.problems, **options)
    used = {role: table.roles[role] for role in table.roles if role in {"utterance", "speaker"}}
    table = replace(table, roles=used)
    kept = table.sort_rows(range(len(rows.cells)))
    # Sessions and dialogues play no part here, so warnings about them are dropped.
    people = read_people(table.cells(), kept, [], needed=["speaker"])
    table.check(kept, needed=["speaker"], excused={*columns, "label", "speaker"})
    located = _locate(table, kept, found, sources)
    if not people.speakers:
        warnings.append(
            "No column gives the speaker: whether a speaker was in training is unknown."
        )
    elif "speaker" not in table.roles:
        warnings.append("No column gives the speaker: read from the utterance ids.")
    speakers = unify_spellings(
        people.speakers or [""] * len(kept),
        [rows.numbers[i] for i in kept],
        "speaker",
        spellings=spellings,
        problems=rows.problems,
    )
    return Manifest(
        **located,
        **grouped.take(kept),
        speakers=np.array(speakers),
        sessions=None,
        dialogues=None,
        splits=None,
        warnings=tuple(warnings),
    )


def _warn_of_lost(
    table: Columns, usual: Mapping[str, str], columns: Mapping[str, str], *, any_label: bool
) -> Columns:
    """Warn of columns of the study that the table lacks, and leave out other labels."""
    roles, warnings = dict(table.roles), table.rows.problems.warnings
    lost = {role: name for role, name in usual.items() if role not in columns}
    if lost.keys() & _LABELS and not any_label and not columns.keys() & _LABELS:
        roles = {role: at for role, at in roles.items() if role not in _LABELS}
    for role, name in lost.items():
        text = f"There is no column {name!r}, the {role.replace('_', ' ')} of the study"
        if role in roles:
            warnings.append(f"{text}: {table.rows.header[roles[role]]!r} is used.")
        elif role in table.roles:
            warnings.append(f"{text}, and so no scores: --column {role}=HEADER names another.")
    return replace(table, roles=roles)


def _check_outer(outer: str) -> tuple[str | int, bool]:
    """Check the kind or number of held-out groups, and whether content is held out as well."""
    groups, content, rest = outer.partition("+content")
    if outer == "split" or (groups in {"speaker", "session"} and not rest):
        return groups, bool(content)
    if groups.isascii() and groups.isdecimal() and int(groups) >= MIN_GROUPS and not rest:
        return int(groups), bool(content)
    raise ValueError(
        f"--outer is {outer!r}; expected speaker, session, split, or a number of groups of "
        f"speakers, at least {MIN_GROUPS}; or one of these but split with +content."
    )


def _locate(
    table: Columns,
    kept: Sequence[int],
    found: Mapping[str, int],
    sources: Sources,
    *,
    select: Sequence[str] = (),
) -> dict[str, Any]:
    """Locate the feature files, raise all problems, and return fields of a manifest."""
    root = table.rows.folder.absolute().resolve()
    paths, absent = locate_files(table, kept, found, root, sources, select=select)
    table.rows.problems.raise_any()
    cells, utterance = table.rows.cells, table.roles["utterance"]
    return {
        "source": table.rows.problems.source,
        "root": root,
        "modalities": tuple(paths),
        "utterances": np.array([cells[i][utterance] for i in kept]),
        "paths": paths,
        "generated": (root / GENERATED_MARKER).is_file(),
        "absent": absent,
        "available": (*found, *sources.tables),
        "texts": {
            modality: tuple(cells[i][found[modality]] for i in kept)
            for modality in paths
            if sources.extract.get(modality) in TEXT_EXTRACTORS
        },
    }
