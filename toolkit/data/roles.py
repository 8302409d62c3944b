"""Roles of columns, checks of their cells, and names of modalities."""

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType

from toolkit.data.csv_table import CONTROL, Problems, Rows
from toolkit.systems import RESERVED

ROLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "utterance": ("file_name_list", "utterance", "id"),
        "label": ("emotion_labels", "label", "emotion"),
        "label_name": ("label_name",),
        "speaker": ("speakers", "speaker", "subject", "participant"),
        "session": ("session",),
        "dialogue": ("dialogue",),
        "split": ("split",),
    }
)
"""Headers of each role, in any case."""

_REQUIRED = ("utterance", "label", "speaker")

NAMED_MODALITIES: Mapping[str, str] = MappingProxyType(
    {"visual_features": "visual", "acoustic_features": "audio", "lexical_features": "text"}
)
"""Headers whose modality has another name than its column."""

# Longer cells are no names, and an array stores every name at the size of the longest.
_MAX_LENGTH = 200

# Synonyms that users type.
_ALIASES: tuple[frozenset[str], ...] = (
    frozenset({"text", "lexical", "language"}),
    frozenset({"audio", "acoustic", "speech"}),
    frozenset({"visual", "vision", "video", "face"}),
)
_MODALITY_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def find_roles(rows: Rows, *, columns: Mapping[str, str], label: str | None) -> dict[str, int]:
    """Find the column of each role."""
    header, problems = rows.header, rows.problems
    wanted = dict(columns)
    if label is not None:
        if wanted.setdefault("label", label) != label:
            problems.add(
                f"The label column is given twice: {wanted['label']!r} and {label!r}; "
                "leave one of them out."
            )
        wanted["label"] = label
    roles = _chosen_columns(header, wanted, problems)
    for role in ROLES:
        if role in wanted or (role == "label_name" and not _names_belong(header, roles)):
            continue
        free = _free_columns(header, role, roles)
        if len(free) == 1:
            roles[role] = free[0]
        elif free:
            candidates = " and ".join(repr(header[position]) for position in free)
            problems.add(
                f"Columns {candidates} could each be the {role}; choose one with "
                f"--column {role}=HEADER."
            )
    return roles


def _free_columns(header: Sequence[str], role: str, roles: Mapping[str, int]) -> list[int]:
    """List the columns whose header is that of a role and that have none yet."""
    return [
        position
        for position, name in enumerate(header)
        if name.casefold() in ROLES[role] and position not in roles.values()
    ]


def _chosen_columns(
    header: Sequence[str], wanted: Mapping[str, str], problems: Problems
) -> dict[str, int]:
    chosen: dict[str, int] = {}
    for role, name in wanted.items():
        if role not in ROLES:
            problems.add(
                f"There is no role {role!r};{suggest(role, tuple(ROLES))} the roles are "
                f"{', '.join(ROLES)}."
            )
        elif (position := _find_header(header, name)) is None:
            problems.add(
                f"Column {name!r} was chosen as the {role}, but there is none;"
                f"{suggest(name, header)} the columns are {_listed(header)}."
            )
        elif position in chosen.values():
            problems.add(f"Column {header[position]!r} was chosen for two roles.")
        else:
            chosen[role] = position
    return chosen


def _names_belong(header: Sequence[str], roles: Mapping[str, int]) -> bool:
    """Whether the column of label names is that of the label column in use."""
    label = roles.get("label")
    if label is None or header[label].casefold() == "label":
        return True
    return not _free_columns(header, "label", {"label": label})


def _find_header(header: Sequence[str], name: str) -> int | None:
    if name in header:
        return header.index(name)
    # Another case is accepted where it fits one column only.
    folded = [column.casefold() for column in header]
    key = name.strip().casefold()
    return folded.index(key) if folded.count(key) == 1 else None


def suggest(name: str, known: Sequence[str]) -> str:
    """Suggest the nearest known name, as a part of a sentence; empty if none is near."""
    nearest = get_close_matches(name, known, n=1)
    return f" did you mean {nearest[0]!r}?" if nearest else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def check_required(rows: Rows, roles: Mapping[str, int], *, excused: Collection[str]) -> None:
    """Report required roles without a column."""
    for role in _REQUIRED:
        if role in roles or role in excused or _free_columns(rows.header, role, roles):
            continue
        rows.problems.add(
            f"No column holds the {role}; expected one called "
            f"{' or '.join(map(repr, ROLES[role]))}, or the choice of one with --column "
            f"{role}=HEADER. The columns are {_listed(rows.header)}."
        )


def check_header(rows: Rows) -> None:
    """Report headers of more than one column."""
    for name in dict.fromkeys(rows.header):
        numbers = [i for i, other in enumerate(rows.header, start=1) if other == name]
        # Columns without a name are what an exported row index leaves behind.
        if name and len(numbers) > 1:
            rows.problems.add(
                f"Columns {' and '.join(map(str, numbers))} are both called {name!r}; "
                "rename or remove one."
            )


def drop_empty_columns(rows: Rows, roles: Mapping[str, int]) -> dict[str, int]:
    """Leave out the empty columns of optional roles, with a warning."""
    kept = dict(roles)
    for role, position in roles.items():
        if role not in _REQUIRED and not any(rows.column(position)):
            rows.problems.warnings.append(
                f"Column {rows.header[position]!r} is empty and was not used."
            )
            del kept[role]
    return kept


def check_cells(
    rows: Rows, roles: Mapping[str, int], kept: Sequence[int], *, needed: str
) -> None:
    """Report empty cells, cells that cannot be names, and repeated utterance ids."""
    every_row = range(len(rows.cells))
    for role, position in roles.items():
        may_be_empty = role not in {*_REQUIRED, "label_name", needed}
        # A row of an excluded class needs no speaker, but its id and label are checked.
        for i in every_row if role in {"utterance", "label", "label_name"} else kept:
            cell = rows.cells[i][position]
            if not cell and not may_be_empty:
                text = f"the cell is empty; every row needs its {role.replace('_', ' ')}."
            elif CONTROL.search(cell):
                text = f"{cell[:_MAX_LENGTH]!r} holds a control character; keep to one line."
            elif len(cell) > _MAX_LENGTH:
                text = (
                    f"{len(cell):,} characters cannot name a {role}; at most {_MAX_LENGTH} can."
                )
            else:
                continue
            rows.problems.add(text, row=rows.numbers[i], column=rows.header[position])
    if "utterance" not in roles:
        return
    first_row: dict[str, int] = {}
    utterances = rows.column(roles["utterance"])
    for number, utterance in zip(rows.numbers, utterances, strict=True):
        if utterance and first_row.setdefault(utterance, number) != number:
            rows.problems.add(
                f"{utterance!r} is in row {first_row[utterance]:,} already; every row needs "
                "an id of its own.",
                row=number,
                column=rows.header[roles["utterance"]],
            )


def name_modality(header: str) -> str:
    """Name the modality of a column of feature files."""
    folded = header.casefold()
    name = NAMED_MODALITIES.get(folded, folded.removesuffix("_features"))
    if not _MODALITY_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a modality; expected letters a-z, digits and single "
            "underscores, a letter first: rename the column."
        )
    if name in RESERVED:
        raise ValueError(
            f"{name!r} is the name of a fusion or baseline and cannot name a modality; "
            "rename the column."
        )
    return name


def resolve_modality(name: str, known: Sequence[str]) -> str:
    """Find the modality that a user names, by its name or a synonym."""
    key = name.strip().casefold()
    if key not in known:
        key = NAMED_MODALITIES.get(key, key).removesuffix("_features")
    if key in known:
        return key
    matches = [other for other in known if any({key, other} <= names for names in _ALIASES)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(f"Modality {name!r} could mean {_listed(matches)}; name one of these.")
    raise ValueError(
        f"There is no modality {name!r};{suggest(key, known)} the modalities are "
        f"{_listed(known)}."
    )
