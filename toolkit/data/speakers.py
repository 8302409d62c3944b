"""Who speaks in which session, and whether that makes enough groups to hold out."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from toolkit.data.csv_table import Problems

# Busso et al. (2008), IEMOCAP: interactive emotional dyadic motion capture database, Language
# Resources and Evaluation 42(4). The letter after the session number tells who wears the
# markers, not who speaks: both partners of Ses01F_impro01 are recorded under that name, and
# only the last part of an id is the speaker's.
UTTERANCE = re.compile(
    r"(?P<dialogue>(?P<session>Ses(?P<number>[0-9]{2}))[FM]_[a-z]+[0-9]{2}[0-9a-z_]*)"
    r"_(?P<gender>[FM])[0-9A-Z]+"
)


class Origin(NamedTuple):
    """Where an utterance comes from.

    - speaker: Gender and session, such as ``"F01"``.
    - session: Session of one pair of actors, such as ``"Ses01"``.
    - dialogue: Recording within the session, such as ``"Ses01F_impro01"``.
    """

    speaker: str
    session: str
    dialogue: str


def read_origins(utterances: Sequence[str]) -> list[Origin] | None:
    """Read speaker, session and dialogue from IEMOCAP's utterance ids.

    Examples
    --------
    >>> read_origins(["Ses01F_impro01_M003"])
    [Origin(speaker='M01', session='Ses01', dialogue='Ses01F_impro01')]
    >>> read_origins(["Ses01F_impro01_M003", "interview_7"]) is None
    True
    """
    matches = [UTTERANCE.fullmatch(utterance) for utterance in utterances]
    if not matches or not all(matches):
        return None
    return [
        Origin(match["gender"] + match["number"], match["session"], match["dialogue"])
        for match in matches
        if match is not None
    ]


MIN_GROUPS = 3
"""One group to hold out, one to validate on, one to learn from."""


@dataclass(frozen=True, slots=True)
class People:
    """What the table, or its ids, tell of every row that is used.

    - speakers: Who speaks; empty where that is not told.
    - sessions, dialogues, splits: Session, dialogue and part, where they are told.
    """

    speakers: list[str]
    sessions: list[str] | None
    dialogues: list[str] | None
    splits: list[str] | None


def read_people(
    cells: Mapping[str, Sequence[str]], kept: Sequence[int], warnings: list[str], *, needed: str
) -> People:
    """Gather who speaks where, from IEMOCAP's ids where no column tells."""
    told = {role: [cells[role][i] for i in kept] for role in cells}
    origins = read_origins(cells.get("utterance", ()))
    if origins:
        if "speaker" in told:
            _compare_origins(told["speaker"], [origins[i] for i in kept], warnings)
        absent = [role for role in ("speaker", "session", "dialogue") if role not in told]
        told |= {role: [getattr(origins[i], role) for i in kept] for role in absent}
        if absent:
            warnings.append(
                f"No column tells the {' or the '.join(absent)}: read from the utterance ids, "
                "which are IEMOCAP's."
            )
    sessions = told.get("session")
    if sessions and needed != "session" and not all(sessions):
        n_without = sessions.count("")
        warnings.append(
            f"Sessions are not used: {n_without:,} of {len(kept):,} rows tell none."
        )
        sessions = None
    splits = told.get("split")
    if splits:
        # As headers, the two words that mean something are known in any case.
        known = {"train", "test"}
        splits = [part.casefold() if part.casefold() in known else part for part in splits]
    return People(told.get("speaker", []), sessions, told.get("dialogue"), splits)


def check_outer(outer: str) -> str | int:
    """Check what the outer folds hold out.

    Examples
    --------
    >>> check_outer("session"), check_outer("5")
    ('session', 5)
    """
    if outer in {"speaker", "session", "split"}:
        return outer
    if outer.isascii() and outer.isdecimal() and int(outer) >= MIN_GROUPS:
        return int(outer)
    raise ValueError(
        f"--outer is {outer!r}; expected speaker, session, split, or a number of groups of "
        f"speakers, at least {MIN_GROUPS}."
    )


def check_groups(
    outer: str | int,
    people: People,
    problems: Problems,
) -> None:
    """Check that there are groups enough for the outer folds."""
    if outer == "split":
        _check_split(people.splits, problems)
    elif outer == "session" and people.sessions is None:
        problems.add(
            "--outer session needs a column called 'session', or IEMOCAP's utterance ids; "
            "use --outer speaker, or choose a column with --column session=HEADER."
        )
    else:
        unit = "session" if outer == "session" else "speaker"
        groups = sorted({*((people.sessions or []) if unit == "session" else people.speakers)})
        groups = [group for group in groups if group]
        needed = outer if isinstance(outer, int) else MIN_GROUPS
        if len(groups) < needed:
            named = f" ({', '.join(map(repr, groups))})" if 0 < len(groups) < 10 else ""
            problems.add(
                f"--outer {outer} needs at least {needed} {unit}s, but there "
                f"{'is' if len(groups) == 1 else 'are'} {len(groups)}{named}; "
                "hold out another unit with --outer, or add recordings."
            )


def _check_split(splits: Sequence[str] | None, problems: Problems) -> None:
    if splits is None:
        problems.add(
            "--outer split needs a column called 'split' with the values 'train' and 'test'; "
            "use --outer speaker, or choose a column with --column split=HEADER."
        )
        return
    for part in ("train", "test"):
        if part not in splits:
            there = ", ".join(map(repr, sorted(set(splits))[:10]))
            problems.add(f"--outer split needs {part!r} rows; the values there are {there}.")


def _compare_origins(
    speakers: Sequence[str], origins: Sequence[Origin], warnings: list[str]
) -> None:
    # The column may call people as it likes, as long as each is one person after the ids too.
    pairs = set(zip(speakers, (origin.speaker for origin in origins), strict=True))
    for given_is_first in (True, False):
        others: dict[str, list[str]] = {}
        for given, told in sorted(pairs):
            key, other = (given, told) if given_is_first else (told, given)
            others.setdefault(key, []).append(other)
        mixed = [key for key in others if len(others[key]) > 1]
        if mixed:
            several = " and ".join(map(repr, others[mixed[0]][:3]))
            column, ids = (repr(mixed[0]), several) if given_is_first else (several, mixed[0])
            warnings.append(
                f"The speaker column and the utterance ids disagree: {column} in the column is "
                f"{ids} after the ids, whose last part tells the speaker in IEMOCAP."
            )
            return


def warn_of_lookalikes(names: Sequence[str], what: str, warnings: list[str]) -> None:
    """Warn of names that somebody may have meant to be the same."""
    alike: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        key = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        alike.setdefault(key, []).append(name)
    warnings.extend(
        f"{what.capitalize()} {' and '.join(map(repr, group))} differ only by case or space, "
        "and count as different."
        for group in alike.values()
        if len(group) > 1
    )


def warn_of_speakers(
    speakers: Sequence[str], labels: Sequence[str], warnings: list[str]
) -> None:
    """Warn of what makes speakers hard to learn from."""
    if len(set(speakers)) == len(speakers):
        warnings.append("Every utterance has a speaker of its own: are these speakers?")
    speakers_of: dict[str, set[str]] = {}
    for speaker, label in sorted(set(zip(speakers, labels, strict=True))):
        speakers_of.setdefault(label, set()).add(speaker)
    for label, having in speakers_of.items():
        if len(having) == 1:
            warnings.append(
                f"Class {label!r} occurs with speaker {next(iter(having))!r} only: nothing is "
                "left to learn it from when that speaker is held out."
            )
