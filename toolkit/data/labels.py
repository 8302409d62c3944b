"""Classes of labels: ordered, named, merged and selected; and names compared as people read."""

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Any, Literal

import numpy as np

from toolkit.data.csv_table import Problems
from toolkit.data.roles import suggest

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

# More different numbers are a scale and no classes; fewer classes may do with few rows.
_MOST_NUMBERS = 20
_FEW_CLASSES = 5
_ROWS_PER_CLASS = 5

Spellings = Literal["refuse", "join", "keep"]

# Marks that Unicode calls ignorable by default, beside its control and format characters.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0000-\U000e0fff]"
)
_DECIMAL = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?")
_ROWS_SHOWN = 3
_MOST_GROUPS = 5


def _bin_labels(
    labels: Sequence[str], edges: Sequence[float], numbers: Sequence[int], problems: Problems
) -> tuple[list[str], list[str]]:
    """Make classes of numeric labels; give the code and the name of each row's class.

    Each class begins at its edge, which belongs to it.
    """
    low, *rest = (f"{edge:g}" for edge in edges)
    names = [f"below {low}"]
    for edge in rest:
        names.append(f"from {low} to below {edge}")
        low = edge
    names.append(f"from {low}")
    codes: list[str] = []
    for label, number in zip(labels, numbers, strict=True):
        value = float(label) if _NUMBER.fullmatch(label) else None
        if value is None and label:
            problems.add(f"The label {label!r} is no number, and --bins needs one.", row=number)
        codes.append("" if value is None else str(bisect_right(edges, value)))
    return codes, [names[int(code)] if code else "" for code in codes]


def _check_scale(labels: Sequence[str], header: str, problems: Problems) -> None:
    """Refuse labels that are a scale, or nearly as many as rows."""
    distinct, n = set(labels), len(labels)
    is_scale = all(_NUMBER.fullmatch(label) for label in distinct)
    many = len(distinct) >= _FEW_CLASSES and _ROWS_PER_CLASS * len(distinct) > n
    if not many and not (is_scale and len(distinct) > _MOST_NUMBERS):
        return
    if is_scale:
        middle = median(map(float, labels))
        text = (
            f"{len(distinct):,} different numbers in {n:,} rows are a continuous target, and "
            "classes are predicted here. Make classes of them, for example in two with "
            f"--bins={middle:g}, or name another column with --label HEADER."
        )
    else:
        text = (
            f"{len(distinct):,} classes in {n:,} rows are more than a fifth of the rows. Name "
            "another column with --label HEADER, or keep and join classes with --classes and "
            "--merge; numbers can be put into --bins."
        )
    problems.add(text, column=header)


@dataclass(frozen=True, slots=True)
class _Classes:
    """The classes of a study, as in a manifest, and the class of every row.

    - positions: Class of each row, as a position in `names`; -1 where the row is excluded.
    """

    names: tuple[str, ...]
    codes: tuple[str, ...]
    positions: tuple[int, ...]
    excluded: dict[str, int]
    merged: dict[str, str]

    def take(self, kept: Sequence[int]) -> dict[str, Any]:
        """Give the classes and the labels of the kept rows as fields of a manifest."""
        labels = np.array([self.positions[i] for i in kept], dtype=np.int64)
        found = {"classes": self.names, "codes": self.codes, "labels": labels}
        return found | {"excluded": self.excluded, "merged": self.merged}


def _order_codes(codes: Sequence[str]) -> list[str]:
    """Sort label codes: as numbers where all are numbers, else by code point."""
    distinct = set(codes)
    if all(_NUMBER.fullmatch(code) for code in distinct):
        return sorted(distinct, key=lambda code: (Decimal(code), code))
    return sorted(distinct)


def make_classes(
    labels: Sequence[str],
    names: Sequence[str] | None,
    numbers: Sequence[int],
    problems: Problems,
    *,
    select: Sequence[str],
    merge: Mapping[str, str],
    bins: Sequence[float] = (),
    column: str = "label",
    learnt: bool = True,
) -> _Classes:
    """Map the label of every row to one of the study's classes.

    - names: Name of the class of each row; None where codes serve as names.
    - numbers: Row number of each row, for messages; `column` is the header.
    - bins: Edges of the classes that are made of numeric labels.
    - learnt: Whether models learn the classes, which then need two, with several rows each.
    """
    if bins:
        labels, names = _bin_labels(labels, bins, numbers, problems)
    n_problems = len(problems)
    code_order = _order_codes([label for label in labels if label])
    name_of = {code: code for code in code_order}
    if names is not None:
        name_of |= _name_codes(labels, names, numbers, problems)
    target_of = _resolve_merges(merge, name_of, problems)
    kept = _resolve_selection(select, target_of, name_of, problems)

    codes = tuple(code for code in code_order if code in kept)
    if learnt and len(codes) < 2 and code_order and len(problems) == n_problems:
        only = f", {name_of[codes[0]]!r}" if codes else ""
        problems.add(
            f"A study needs at least two classes, but there is {len(codes)}{only}; the labels "
            f"there are {', '.join(map(repr, name_of.values()))}."
        )
    position = {code: i for i, code in enumerate(codes)}
    used = [code for label in labels if (code := target_of.get(label, label)) in position]
    if learnt and used and not len(problems):
        _check_scale(used, column, problems)
    excluded = Counter(
        label for label in labels if label and target_of.get(label, label) not in kept
    )
    return _Classes(
        names=tuple(name_of[code] for code in codes),
        codes=codes,
        positions=tuple(position.get(target_of.get(label, label), -1) for label in labels),
        excluded={name_of[code]: excluded[code] for code in code_order if excluded[code]},
        merged={name_of[source]: name_of[target] for source, target in target_of.items()},
    )


def _name_codes(
    labels: Sequence[str], names: Sequence[str], numbers: Sequence[int], problems: Problems
) -> dict[str, str]:
    name_of: dict[str, str] = {}
    code_of: dict[str, str] = {}
    # Each pair is checked once, at its first row: a thousand rows can share one mistake.
    first_row: dict[tuple[str, str], int] = {}
    for code, name, number in zip(labels, names, numbers, strict=True):
        if code and name:
            first_row.setdefault((code, name), number)
    for (code, name), number in first_row.items():
        if (other := name_of.setdefault(code, name)) != name:
            fault = f" and {other!r} in row {first_row[code, other]:,}; a code needs one name."
        elif (other := code_of.setdefault(name, code)) != code:
            fault = (
                f", as is code {other!r} in row {first_row[other, name]:,}; a name needs one "
                "code (--merge joins classes)."
            )
        else:
            continue
        problems.add(f"Code {code!r} is called {name!r} here{fault}", row=number)
    return name_of


def _resolve(
    name: str, name_of: Mapping[str, str], problems: Problems, *, option: str
) -> str | None:
    """Return the code of a class given by name or code; None after reporting a problem."""
    matches = [code for code, other in name_of.items() if name.strip() in {code, other}]
    if len(matches) == 1:
        return matches[0]
    if matches:
        problems.add(
            f"{option} names {name!r}, which is the name of one class and the code of "
            "another; use the other word for the class that is meant."
        )
        return None
    names = [*name_of.values()]
    problems.add(
        f"{option} names {name!r}, which is no class;{suggest(name, names)} the classes are "
        f"{', '.join(map(repr, names))}."
    )
    return None


def _resolve_merges(
    merge: Mapping[str, str], name_of: Mapping[str, str], problems: Problems
) -> dict[str, str]:
    target_of: dict[str, str] = {}
    for source, target in merge.items():
        code = _resolve(source, name_of, problems, option="--merge")
        target_code = _resolve(target, name_of, problems, option="--merge")
        if code is None or target_code is None:
            continue
        if code == target_code:
            problems.add(f"--merge joins {source!r} to itself; name two classes.")
        elif target_of.setdefault(code, target_code) != target_code:
            both = f"{name_of[target_of[code]]!r} and {name_of[target_code]!r}"
            problems.add(f"--merge joins {name_of[code]!r} to {both}; choose one.")
    # The result of a chain would depend on the order of the merges.
    chained = [target for target in dict.fromkeys(target_of.values()) if target in target_of]
    for target in chained:
        problems.add(
            f"--merge joins other classes to {name_of[target]!r}, which is itself merged "
            f"into {name_of[target_of[target]]!r}; join them to the class that is to be left."
        )
    return {} if chained else target_of


def _resolve_selection(
    select: Sequence[str],
    target_of: Mapping[str, str],
    name_of: Mapping[str, str],
    problems: Problems,
) -> set[str]:
    kept = set()
    for name in select:
        code = _resolve(name, name_of, problems, option="--classes")
        if code is not None and code in target_of:
            problems.add(
                f"--classes names {name!r}, which --merge joins to "
                f"{name_of[target_of[code]]!r}; name that one."
            )
        kept.add(code)
    if select and None not in kept:
        return {code for code in kept if code is not None}
    # A failed choice excludes nothing, so that one mistake is not followed by others.
    return {code for code in name_of if code not in target_of}


def canonical_name(name: str) -> str:
    """Give the form that all spellings of a name share: of ``01.0`` 1, of ``Ann B`` annb."""
    text, before = name, None
    while text != before:  # a mark may join the letter before a space that was removed
        before, text = text, _strip_marks(text)
    if number := _DECIMAL.fullmatch(text):
        sign, whole, fraction = number.groups()
        whole, fraction = whole.lstrip("0") or "0", (fraction or "").rstrip("0")
        text = f"{whole}.{fraction}" if fraction else whole
        return f"-{text}" if sign == "-" and text != "0" else text
    return re.sub(r"(?<!\d)0+(?=\d)", "", text) or name


def _strip_marks(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(
        sign
        for sign in _IGNORABLE.sub("", folded)
        if not sign.isspace() and unicodedata.category(sign)[0] not in "CZ"
    )


def unify_spellings(
    names: Sequence[str],
    numbers: Sequence[int],
    role: str,
    *,
    spellings: Spellings,
    problems: Problems,
) -> list[str]:
    """Join, keep or refuse different spellings of one name.

    - numbers: Row number of each name, for messages.
    """
    forms = {name: canonical_name(name) for name in {*names}}
    rows: dict[str, dict[str, list[int]]] = {}
    for number, name in sorted(zip(numbers, names, strict=True)):
        if name:
            rows.setdefault(forms[name], {}).setdefault(name, []).append(number)
    groups = [group for _, group in sorted(rows.items()) if len(group) > 1]
    composed = {name: unicodedata.normalize("NFC", name) for name in forms}
    kind = f"{role.replace('_', ' ').capitalize()}s"
    for group in groups[:_MOST_GROUPS]:
        found = " and ".join(f"{name!r} ({_show_rows(group[name])})" for name in sorted(group))
        # Row numbers stand in problems alone: notes are those of every order of the rows.
        counted = " and ".join(
            f"{name!r} ({len(group[name]):,} row{'s' if len(group[name]) > 1 else ''})"
            for name in sorted(group)
        )
        # Such names look alike on every screen.
        alike = len({composed[name] for name in group}) < len(group)
        how = "spelling" + " (Unicode composition: one character or two per accent)" * alike
        if spellings == "refuse":
            problems.add(
                f"{kind} {found} differ only in {how}. Correct the table; or take them for "
                "one with --spellings join, for different ones with --spellings keep."
            )
        elif spellings == "keep":
            problems.warnings.append(
                f"{kind} {counted} differ only in {how}, and count as different."
            )
        else:
            problems.warnings.append(f"{kind} {counted} are taken for one: {_usual(group)!r}.")
    if len(groups) > _MOST_GROUPS:
        text = f"{kind} in several spellings: {len(groups) - _MOST_GROUPS:,} more names."
        (problems.add if spellings == "refuse" else problems.warnings.append)(text)
    if spellings != "join":
        return [*names]
    chosen = {name: _usual(group) for group in groups for name in group}
    return [chosen.get(name, name) for name in names]


def _usual(group: dict[str, list[int]]) -> str:
    """Choose the commonest spelling, of equals the first by code point."""
    return min(group, key=lambda name: (-len(group[name]), name))


def _show_rows(numbers: Sequence[int]) -> str:
    shown = ", ".join(f"{number:,}" for number in numbers[:_ROWS_SHOWN])
    more = f" and {len(numbers) - _ROWS_SHOWN:,} more" if len(numbers) > _ROWS_SHOWN else ""
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{more}"
