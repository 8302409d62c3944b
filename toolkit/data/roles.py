"""Which column plays which role, and what the modalities are called."""

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType

from toolkit.data.csv_table import Problems
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
"""Headers that each role is recognised by, whatever their case."""

REQUIRED = ("utterance", "label", "speaker")
"""Roles that a table cannot do without."""

NAMED_MODALITIES: Mapping[str, str] = MappingProxyType(
    {"visual_features": "visual", "acoustic_features": "audio", "lexical_features": "text"}
)
"""Columns whose modality has a name of its own."""

ALIASES: tuple[frozenset[str], ...] = (
    frozenset({"text", "lexical", "language"}),
    frozenset({"audio", "acoustic", "speech"}),
    frozenset({"visual", "vision", "video", "face"}),
)
"""Names that mean the same modality to somebody who types them."""

MODALITY_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def find_roles(
    header: Sequence[str],
    problems: Problems,
    *,
    columns: Mapping[str, str],
    label: str | None,
) -> dict[str, int]:
    """Find the column of each role."""
    wanted = dict(columns)
    if label is not None:
        if wanted.setdefault("label", label) != label:
            problems.add(
                f"The label column is given twice: {wanted['label']!r} and {label!r}; "
                "leave one of them out."
            )
        wanted["label"] = label
    roles = _chosen_columns(header, wanted, problems)
    for role, names in ROLES.items():
        if role in wanted or (role == "label_name" and not _names_belong(header, roles)):
            continue
        free = [
            position
            for position, name in enumerate(header)
            if name.casefold() in names and position not in roles.values()
        ]
        if len(free) == 1:
            roles[role] = free[0]
        elif free:
            candidates = " and ".join(repr(header[position]) for position in free)
            problems.add(
                f"Columns {candidates} could each be the {role}; choose one with "
                f"--column {role}=HEADER."
            )
    return roles


def _chosen_columns(
    header: Sequence[str], wanted: Mapping[str, str], problems: Problems
) -> dict[str, int]:
    chosen: dict[str, int] = {}
    for role, name in wanted.items():
        if role not in ROLES:
            problems.add(
                f"There is no role {role!r};{_suggestion(role, tuple(ROLES))} the roles are "
                f"{', '.join(ROLES)}."
            )
        elif (position := _find_header(header, name)) is None:
            problems.add(
                f"Column {name!r} was chosen as the {role}, but there is none;"
                f"{_suggestion(name, header)} the columns are {_listed(header)}."
            )
        elif position in chosen.values():
            problems.add(f"Column {header[position]!r} was chosen for two roles.")
        else:
            chosen[role] = position
    return chosen


def _names_belong(header: Sequence[str], roles: Mapping[str, int]) -> bool:
    """Tell whether label names stand beside the label in use, and not beside another one."""
    label = roles.get("label")
    if label is None or header[label].casefold() == "label":
        return True
    others = [i for i, name in enumerate(header) if name.casefold() in ROLES["label"]]
    return not [i for i in others if i != label]


def _find_header(header: Sequence[str], name: str) -> int | None:
    if name in header:
        return header.index(name)
    folded = [column.casefold() for column in header]
    key = name.strip().casefold()
    return folded.index(key) if folded.count(key) == 1 else None


def _suggestion(name: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(name, known, n=1)
    return f" did you mean {nearest[0]!r}?" if nearest else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def check_required(
    header: Sequence[str],
    roles: Mapping[str, int],
    problems: Problems,
    *,
    excused: Collection[str],
) -> None:
    """Note roles that a table cannot do without and that no column plays."""
    for role in REQUIRED:
        candidates = [
            position
            for position, name in enumerate(header)
            if name.casefold() in ROLES[role] and position not in roles.values()
        ]
        if role in roles or role in excused or candidates:
            continue
        problems.add(
            f"No column holds the {role}; expected one called "
            f"{' or '.join(map(repr, ROLES[role]))}, or the choice of one with --column "
            f"{role}=HEADER. The columns are {_listed(header)}."
        )


def check_header(header: Sequence[str], problems: Problems) -> None:
    """Note headers that stand over more than one column."""
    for name in dict.fromkeys(header):
        places = [i for i, other in enumerate(header, start=1) if other == name]
        # Columns without a name are what an exported row index leaves behind.
        if name and len(places) > 1:
            problems.add(
                f"Columns {' and '.join(map(str, places))} are both called {name!r}; "
                "rename or remove one."
            )


def name_modality(header: str) -> str:
    """Name the modality whose feature files a column lists.

    Examples
    --------
    >>> [name_modality(h) for h in ("acoustic_features", "Pose_features", "voice")]
    ['audio', 'pose', 'voice']
    """
    folded = header.casefold()
    name = NAMED_MODALITIES.get(folded, folded.removesuffix("_features"))
    if not MODALITY_NAME.fullmatch(name):
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
    """Find the modality that somebody means.

    Examples
    --------
    >>> resolve_modality("lexical", ["visual", "audio", "text"])
    'text'
    >>> resolve_modality("face", ["audio", "video"])
    'video'
    """
    asked = name.strip().casefold()
    asked = NAMED_MODALITIES.get(asked, asked) if asked not in known else asked
    if asked not in known:
        asked = asked.removesuffix("_features")
    if asked in known:
        return asked
    meant = [other for group in ALIASES if asked in group for other in known if other in group]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise ValueError(f"Modality {name!r} could mean {_listed(meant)}; name one of these.")
    raise ValueError(
        f"There is no modality {name!r};{_suggestion(asked, known)} the modalities are "
        f"{_listed(known)}."
    )
