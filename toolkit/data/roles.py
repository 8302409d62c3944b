"""The role of each column of a table, and checks of the cells of roles."""

import re
import shlex
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType

from toolkit.data.csv_table import CONTROL, Problems, Rows

ROLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "utterance": ("file_name_list", "utterance", "id"),
        "label": ("emotion_labels", "label", "emotion"),
        "label_name": ("label_name",),
        "speaker": ("speakers", "speaker", "subject", "participant"),
        "session": ("session",),
        "dialogue": ("dialogue",),
        "split": ("split",),
        "content": ("scene", "script", "sentence", "statement", "prompt", "item", "content"),
    }
)
"""Headers of each role, in any case."""

# Words of other data sets, taken where no column has one of the headers above.
FURTHER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "utterance": (
            *("file_name", "filename", "file", "path", "utterance_id", "clip_id", "segment_id"),
        ),
        "label": ("emotion_label", "labels", "class", "target"),
        "speaker": (
            *("speaker_id", "subject_id", "participant_id", "actor", "actor_id", "person"),
            "person_id",
        ),
    }
)

#: Headers of transcripts, beside the name of their modality. A sentence is content, which
#: another may speak too: ``--column text=sentence`` names it where it is wanted.
TRANSCRIPTS = ("transcript", "utterance_text")
TEXT_EXTRACTORS = ("tfidf", "hashing")

_REQUIRED = ("utterance", "label", "speaker")

# An array stores every name at the size of the longest.
MAX_LENGTH = 200
"""Longer cells are no names."""

# Missing values of pandas, Excel and databases. NA and none may be names, and Nan is one.
_MISSING = {"nan", "NaN", "<NA>", "#N/A", "NULL"}


@dataclass(frozen=True, slots=True)
class Columns:
    """A table and the position of the column of each role that it has.

    - modalities: Positions of columns of feature files whose modality a user named.
    """

    rows: Rows
    roles: Mapping[str, int]
    modalities: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def find(
        cls,
        rows: Rows,
        *,
        columns: Mapping[str, str],
        label: str | None,
        lists_files: Callable[[Sequence[str]], bool] = lambda _: False,
        extracted: Collection[str] = (),
    ) -> "Columns":
        """Find the column of each role, and report headers of more than one column.

        - columns: Header of a role, or of a modality where its column lists feature files.
        - lists_files: Whether cells are those of a column of feature files.
        - extracted: Modalities whose features are computed from another column.
        """
        rows = _combine_columns(rows, columns.values())
        header, problems = rows.header, rows.problems
        _check_header(header, problems)
        wanted = dict(columns)
        if label is not None:
            if wanted.setdefault("label", label) != label:
                problems.add(
                    f"The label column is given twice: {wanted['label']!r} and {label!r}; "
                    "leave one of them out."
                )
            wanted["label"] = label
        files = {i for i in range(len(header)) if lists_files(rows.column(i))}
        roles, modalities = _choose_columns(rows, wanted, files, extracted)
        for role in ROLES:
            if role in wanted or (role == "label_name" and not _names_belong(header, roles)):
                continue
            free = _free_columns(header, role, roles)
            if role == "content":
                free = [i for i in free if i not in files]
            if not free:
                further = FURTHER.get(role, ())
                free = [
                    i for i in _free_columns(header, role, roles, further) if i not in files
                ]
            if len(free) == 1:
                roles[role] = free[0]
            elif free:
                candidates = " and ".join(repr(header[position]) for position in free)
                text = (
                    f"Columns {candidates} could each be the {role}; choose one with "
                    f"--column {role}={shlex.quote(header[free[0]])}."
                )
                # Most studies need no content, and their tables may have several such columns.
                (problems.warnings.append if role == "content" else problems.add)(text)
        return cls(rows, roles, modalities)

    def cells(self) -> dict[str, list[str]]:
        """Return the cells of each role, one per row."""
        return {role: self.rows.column(position) for role, position in self.roles.items()}

    def without_empty(self) -> "Columns":
        """Leave out the empty columns of optional roles, with a warning."""
        kept = dict(self.roles)
        for role, position in self.roles.items():
            if role not in _REQUIRED and not any(self.rows.column(position)):
                self.rows.problems.warnings.append(
                    f"Column {self.rows.header[position]!r} is empty and was not used."
                )
                del kept[role]
        return Columns(self.rows, kept, self.modalities)

    def find_times(self) -> dict[str, int]:
        """Find the columns of the times that cut segments out of recordings."""
        words = [join_words(name) for name in self.rows.header]
        return {name: words.index(name) for name in ("start", "end") if words.count(name) == 1}

    def sort_rows(self, kept: Iterable[int]) -> list[int]:
        """Sort row positions by the utterance ids, if these have a column."""
        if "utterance" not in self.roles:
            return list(kept)
        return sorted(kept, key=self.rows.column(self.roles["utterance"]).__getitem__)

    def check(
        self, kept: Sequence[int], *, needed: Collection[str], excused: Collection[str]
    ) -> None:
        """Report required roles without a column, bad cells, and repeated utterance ids.

        - needed: Optional roles whose cells must not be empty, since the outer folds need them.
        - excused: Required roles that may lack a column.
        """
        header = self.rows.header
        for role in _REQUIRED:
            free = role in self.roles or _free_columns(header, role, self.roles)
            if free or role in excused:
                continue
            self.rows.problems.add(
                f"No column holds the {role}; expected one called "
                f"{' or '.join(map(repr, ROLES[role]))}, or the choice of one, as in --column "
                f"{role}={self._suggest_column(role)}. The columns are "
                f"{', '.join(map(repr, header))}."
            )
        self._check_cells(kept, needed)
        self._note_padding()

    def _note_padding(self) -> None:
        """Note white space that was removed from cells of roles, by utterance."""
        rows, utterance = self.rows, self.roles.get("utterance")
        for role, position in self.roles.items():
            # Not by row number: a note is the same in every order of the rows.
            found = sorted(
                f"{cell!r}" + ("" if utterance is None else f" of {rows.cells[i][utterance]!r}")
                for (i, column), cell in rows.padded.items()
                if column == position
            )
            if found:
                more = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
                rows.problems.warnings.append(
                    f"Column {rows.header[position]!r}: white space around the "
                    f"{role.replace('_', ' ')} was removed, from {', '.join(found[:3])}{more}."
                )

    def read_traits(
        self,
        by: Sequence[str],
        kept: Sequence[int],
        speakers: Sequence[str] | None,
        unify: Callable[[list[str], list[int], str], list[str]],
    ) -> dict[str, dict[str, str]]:
        """Read the value of each speaker in columns that group people; report a second one."""
        header, problems, traits = self.rows.header, self.rows.problems, {}
        numbers = [self.rows.numbers[i] for i in kept]
        for name in by:
            position = _find_header(header, name)
            if position is None:
                problems.add(
                    f"--by {name}: there is no such column;{suggest(name, header)} the columns "
                    f"are {', '.join(map(repr, header))}."
                )
                continue
            cells = unify([self.rows.cells[i][position] for i in kept], numbers, name)
            if kept and not any(cells):
                problems.add(f"--by {name}: the column is empty.")
            first: dict[str, int] = {}
            for at, speaker in enumerate(speakers or ()):
                earlier = first.setdefault(speaker, at)
                if cells[at] != cells[earlier]:
                    problems.add(
                        f"{speaker!r} has {cells[at]!r} here and {cells[earlier]!r} in row "
                        f"{numbers[earlier]:,}; --by groups people, and needs one value of "
                        "each in all rows.",
                        row=numbers[at],
                        column=header[position],
                    )
            traits[header[position]] = {who: cells[at] for who, at in first.items()}
        return traits

    def _suggest_column(self, role: str) -> str:
        """Suggest the free column of the likest header, whose cells repeat as the role's do."""
        taken, names = {*self.roles.values(), *self.modalities.values()}, {}
        for position, name in enumerate(self.rows.header):
            cells = self.rows.column(position)
            repeats = len(set(cells)) < len(cells)
            is_free = position not in taken and name and all(c and "." not in c for c in cells)
            if is_free and repeats == (role != "utterance"):
                names[name.casefold()] = shlex.quote(name)
        words = (*ROLES[role], *FURTHER.get(role, ()))
        near = (word for known in words for word in get_close_matches(known, names, n=1))
        return names.get(next(near, ""), "HEADER")

    def _check_cells(self, kept: Sequence[int], needed: Collection[str]) -> None:
        rows = self.rows
        for role, position in self.roles.items():
            may_be_empty = role not in {*_REQUIRED, "label_name", *needed}
            if role == "content" and may_be_empty:
                continue  # not used where its cells name nothing: see read_people
            # A row of an excluded class needs no speaker, but its id and label are checked.
            every_row = role in {"utterance", "label", "label_name"}
            first_row: dict[str, int] = {}
            for i in range(len(rows.cells)) if every_row else kept:
                cell, number = rows.cells[i][position], rows.numbers[i]
                if not cell and not may_be_empty:
                    text = f"the cell is empty; every row needs its {role.replace('_', ' ')}."
                elif cell in _MISSING and (not may_be_empty or role == "session"):
                    remedy = "empty the cell" if may_be_empty else "leave the row out"
                    text = (
                        f"{cell!r} stands for a missing value; write the "
                        f"{role.replace('_', ' ')}, or {remedy}."
                    )
                elif CONTROL.search(cell):
                    text = f"{cell[:MAX_LENGTH]!r} holds a control character; keep to one line."
                elif len(cell) > MAX_LENGTH:
                    text = (
                        f"{len(cell):,} characters cannot name a {role}; at most "
                        f"{MAX_LENGTH} can."
                    )
                elif role == "utterance" and first_row.setdefault(cell, number) != number:
                    text = (
                        f"{cell!r} is in row {first_row[cell]:,} already; every row needs an "
                        "id of its own."
                    )
                else:
                    continue
                rows.problems.add(text, row=number, column=rows.header[position])


def _combine_columns(rows: Rows, wanted: Iterable[str]) -> Rows:
    """Add the columns that are asked for as ``HEADER+HEADER``: their cells joined by ``_``."""
    for name in wanted:
        at = find_columns(rows.header, name)
        if len(at) > 1:
            pairs: dict[str, list[str]] = {}
            cells = []
            for row, number in zip(rows.cells, rows.numbers, strict=True):
                pair = [row[i] for i in at]
                gap = [cell for cell in pair if not cell or cell in _MISSING]
                key = gap[0] if gap else "_".join(pair)
                if not gap and (first := pairs.setdefault(key, pair)) != pair:
                    both = " and ".join(" + ".join(map(repr, part)) for part in (first, pair))
                    text = f"{both} would both be {key!r}; rename one of them."
                    rows.problems.add(text, row=number, column=name)
                cells.append((*row, key))
            rows = replace(rows, header=(*rows.header, name), cells=tuple(cells))
    return rows


def _check_header(header: Sequence[str], problems: Problems) -> None:
    for name in dict.fromkeys(header):
        numbers = [i for i, other in enumerate(header, start=1) if other == name]
        # Columns without a name are what an exported row index leaves behind.
        if name and len(numbers) > 1:
            problems.add(
                f"Columns {' and '.join(map(str, numbers))} are both called {name!r}; "
                "rename or remove one."
            )


def _free_columns(
    header: Sequence[str], role: str, roles: Mapping[str, int], further: Sequence[str] = ()
) -> list[int]:
    """List the columns whose header is that of a role and that have none yet."""
    known = {*ROLES[role], *further}
    return [
        position
        for position, name in enumerate(header)
        if join_words(name) in known and position not in roles.values()
    ]


def join_words(header: str) -> str:
    """Write a header as ``Speaker ID`` or ``speakerId`` in small letters: ``speaker_id``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", unicodedata.normalize("NFKC", header))
    return re.sub(r"[\W_]+", "_", words.casefold()).strip("_")


def _choose_columns(
    rows: Rows, wanted: Mapping[str, str], files: Collection[int], extracted: Collection[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Find the columns that a user names, of roles and of modalities."""
    header, problems = rows.header, rows.problems
    roles: dict[str, int] = {}
    modalities: dict[str, int] = {}
    for role, name in wanted.items():
        at = _find_header(header, name)
        is_modality = role not in ROLES and (at in files or role in extracted)
        if role not in ROLES and not is_modality:
            problems.add(
                f"There is no role {role!r};{suggest(role, tuple(ROLES))} the roles are "
                f"{', '.join(ROLES)}."
            )
        elif at is None:
            use = f"for modality {role!r}" if is_modality else f"as the {role}"
            problems.add(
                f"Column {name!r} was chosen {use}, but there is none;"
                f"{suggest(name, header)} the columns are {', '.join(map(repr, header))}."
            )
        elif is_modality:
            modalities[role] = at
        elif at in roles.values():
            problems.add(f"Column {header[at]!r} was chosen for two roles.")
        else:
            roles[role] = at
    return roles, modalities


def _names_belong(header: Sequence[str], roles: Mapping[str, int]) -> bool:
    """Whether the column of label names is that of the label column in use."""
    label = roles.get("label")
    if label is None or header[label].casefold() == "label":
        return True
    return not _free_columns(header, "label", {"label": label})


def _find_header(header: Sequence[str], name: str) -> int | None:
    if name in header:
        return header.index(name)
    # Another case or other signs are accepted where they fit one column only.
    joined, key = [join_words(column) for column in header], join_words(name)
    return joined.index(key) if key and joined.count(key) == 1 else None


def find_columns(header: Sequence[str], name: str) -> list[int]:
    """Find the column of a header, or those of ``HEADER+HEADER``; none if one is not there."""
    found = [_find_header(header, name)]
    if found[0] is None:
        found = [_find_header(header, part) for part in name.split("+")]
    return [at for at in found if at is not None] if None not in found else []


def suggest(name: str, known: Sequence[str]) -> str:
    """Suggest the nearest known name, as a part of a sentence; empty if none is near."""
    nearest = get_close_matches(name, known, n=1)
    return f" did you mean {nearest[0]!r}?" if nearest else ""
