"""Where two files that should say the same do not, in sentences."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Other versions of numpy may sum in another order; a real difference is far larger.
_RELATIVE: Final = 1e-9
_ABSOLUTE: Final = 1e-12
_MOST_NAMED: Final = 10


def table_differences(name: str, text: str, expected: str, source: str) -> Iterator[str]:
    """Name the cells in which two tables differ."""
    if text == expected:
        return
    header, rows = read_rows(text)
    wanted_header, wanted = read_rows(expected)
    if header != wanted_header:
        yield f"{name}: its columns are {header}; expected {wanted_header}."
        return
    if len(rows) != len(wanted):
        yield f"{name} has {len(rows):,} rows; expected {len(wanted):,}."
        return
    n = 0
    for number, (row, right) in enumerate(zip(rows, wanted, strict=True), start=2):
        for column in header:
            if _alike(row[column], right[column]):
                continue
            n += 1
            if n <= _MOST_NAMED:
                place = ", ".join(value for value in list(row.values())[:4] if value)
                yield (
                    f"{name}, row {number} ({place}): {column} is {row[column]!r}; {source} "
                    f"{right[column]!r}."
                )
    if n > _MOST_NAMED:
        yield f"{name}: {n - _MOST_NAMED:,} further cells differ."


def line_differences(name: str, text: str, expected: str) -> Iterator[str]:
    """Name the lines in which two texts differ."""
    lines, wanted = text.split("\n"), expected.split("\n")
    pairs = zip(lines, wanted, strict=False)
    differing = [number for number, (a, b) in enumerate(pairs, start=1) if a != b]
    for number in differing[:_MOST_NAMED]:
        found, right = _cut(lines[number - 1]), _cut(wanted[number - 1])
        yield f"{name}, line {number} is {found}; expected {right}."
    if len(differing) > _MOST_NAMED:
        yield f"{name}: {len(differing) - _MOST_NAMED:,} further lines differ."
    if len(lines) != len(wanted):
        yield f"{name} has {len(lines):,} lines; expected {len(wanted):,}."


def json_differences(path: Path, expected: str) -> tuple[str, ...]:
    """Name the values in which a JSON file differs from what it should be."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return (f"{path.name} cannot be compared: {error}",)
    places = list(_walk(found, json.loads(expected), ""))
    named = [f"{path.name}, {place}." for place in places[:_MOST_NAMED]]
    if len(places) > _MOST_NAMED:
        named.append(f"{path.name}: {len(places) - _MOST_NAMED:,} further values differ.")
    return tuple(named)


def _walk(found: Any, wanted: Any, place: str) -> Iterator[str]:
    """Name the places in which two trees of plain data differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            if key not in found or key not in wanted:
                yield f"{place}/{key} is {'missing' if key in wanted else 'not expected'}"
            else:
                yield from _walk(found[key], wanted[key], f"{place}/{key}")
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for position, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from _walk(one, other, f"{place}/{position}")
    elif not _alike(json.dumps(found), json.dumps(wanted)):
        yield f"{place} is {_cut(json.dumps(found))}; expected {_cut(json.dumps(wanted))}"


def _alike(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return math.isclose(float(one), float(other), rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    except ValueError:
        return False


def _cut(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:119] + "…")


def read_rows(text: str) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table as text."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="", restkey="")
    rows = [{key: str(value) for key, value in row.items()} for row in reader]
    return list(reader.fieldnames or []), rows
