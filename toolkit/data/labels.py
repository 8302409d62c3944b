"""The classes of a study: ordered, named, merged and selected from the labels of a table."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median

from toolkit.data.csv_table import Problems
from toolkit.data.roles import suggest

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


# More different numbers are a scale and no classes; fewer classes may do with few rows.
_MOST_NUMBERS = 20
_FEW_CLASSES = 5
_ROWS_PER_CLASS = 5


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
) -> _Classes:
    """Map the label of every row to one of the study's classes.

    - names: Name of the class of each row; None where codes serve as names.
    - numbers: Row number of each row, for messages; `column` is the header.
    - bins: Edges of the classes that are made of numeric labels.
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
    if len(codes) < 2 and code_order and len(problems) == n_problems:
        only = f", {name_of[codes[0]]!r}" if codes else ""
        problems.add(
            f"A study needs at least two classes, but there is {len(codes)}{only}; the labels "
            f"there are {', '.join(map(repr, name_of.values()))}."
        )
    position = {code: i for i, code in enumerate(codes)}
    used = [code for label in labels if (code := target_of.get(label, label)) in position]
    if used and not len(problems):
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
        else:
            target_of[code] = target_code
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
