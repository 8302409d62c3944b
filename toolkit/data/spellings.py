"""Names compared as people read them: one speaker or class is not two by its spelling."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from toolkit.data.csv_table import Problems

Spellings = Literal["refuse", "join", "keep"]

# Marks that Unicode calls ignorable by default, beside its control and format characters.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0000-\U000e0fff]"
)
_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?")
_MOST_ROWS = 3
_MOST_GROUPS = 5


def canonical_name(name: str) -> str:
    """Give the form that all spellings of a name share.

    Examples
    --------
    >>> canonical_name("Ann\u00a0 B") == canonical_name("ann b") == "annb"
    True
    >>> canonical_name("01.0"), canonical_name("-0"), canonical_name("Subj02")
    ('1', '0', 'subj2')
    """
    text, before = name, None
    while text != before:  # a mark may join the letter before a space that was removed
        before, text = text, _strip_marks(text)
    if number := _NUMBER.fullmatch(text):
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
    chosen: dict[str, str] = {}
    kind = f"{role.replace('_', ' ').capitalize()}s"
    for group in groups[:_MOST_GROUPS]:
        found = " and ".join(f"{name!r} ({_show_rows(group[name])})" for name in sorted(group))
        # Row numbers stand in problems alone: notes are those of every order of the rows.
        counted = " and ".join(
            f"{name!r} ({len(group[name]):,} row{'s' if len(group[name]) > 1 else ''})"
            for name in sorted(group)
        )
        if spellings == "refuse":
            problems.add(
                f"{kind} {found} differ only in spelling. Correct the table; or take them for "
                "one with --spellings join, for different ones with --spellings keep."
            )
        elif spellings == "keep":
            problems.warnings.append(
                f"{kind} {counted} differ only in spelling, and count as different."
            )
        else:
            problems.warnings.append(f"{kind} {counted} are taken for one: {_usual(group)!r}.")
    if len(groups) > _MOST_GROUPS:
        text = f"{kind} in several spellings: {len(groups) - _MOST_GROUPS:,} more names."
        (problems.add if spellings == "refuse" else problems.warnings.append)(text)
    if spellings == "join":
        chosen = {name: _usual(group) for group in groups for name in group}
    return [chosen.get(name, name) for name in names]


def _usual(group: dict[str, list[int]]) -> str:
    """Choose the commonest spelling, of equals the first by code point."""
    counts = Counter({name: len(rows) for name, rows in group.items()})
    return min(counts, key=lambda name: (-counts[name], name))


def _show_rows(numbers: Sequence[int]) -> str:
    shown = ", ".join(f"{number:,}" for number in numbers[:_MOST_ROWS])
    more = f" and {len(numbers) - _MOST_ROWS:,} more" if len(numbers) > _MOST_ROWS else ""
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{more}"
