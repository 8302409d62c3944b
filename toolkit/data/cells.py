"""The cells of the columns that play a role: filled, short, and ids only once."""

from collections.abc import Mapping, Sequence

from toolkit.data.problems import Problems
from toolkit.data.roles import REQUIRED
from toolkit.data.rows import CONTROL, Rows

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
