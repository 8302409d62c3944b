"""Speakers and sessions of the utterances, and checks that they suffice for outer folds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from toolkit.data.csv_table import Problems

# Busso et al. (2008), IEMOCAP: interactive emotional dyadic motion capture database, Language
# Resources and Evaluation 42(4). The letter after the session number is the person with the
# markers, not the speaker: both partners of Ses01F_impro01 are recorded under that name, and
# only the last part of an id is the speaker's.
_UTTERANCE = re.compile(
    r"(?P<dialogue>(?P<session>Ses(?P<number>[0-9]{2}))[FM]_[a-z]+[0-9]{2}[0-9a-z_]*)"
    r"_(?P<gender>[FM])[0-9A-Z]+"
)


class _Origin(NamedTuple):
    """Speaker, session and dialogue in an id of IEMOCAP."""

    speaker: str
    session: str
    dialogue: str


def _read_origins(utterances: Sequence[str]) -> list[_Origin] | None:
    """Read the origin of each utterance from its id; None unless all ids are IEMOCAP's."""
    origins = []
    for utterance in utterances:
        match = _UTTERANCE.fullmatch(utterance)
        if match is None:
            return None
        speaker = match["gender"] + match["number"]
        origins.append(_Origin(speaker, match["session"], match["dialogue"]))
    return origins or None


MIN_GROUPS = 3
"""One group to hold out, one to validate on, one to learn from."""


@dataclass(frozen=True, slots=True)
class _People:
    """Speaker, session, dialogue and part of each kept row; empty or None if unknown."""

    speakers: list[str]
    sessions: list[str] | None
    dialogues: list[str] | None
    splits: list[str] | None

    def check_groups(self, outer: str | int, problems: Problems) -> None:
        """Check that there are enough groups for the outer folds."""
        if outer == "split" and self.splits is None:
            problems.add(
                "--outer split needs a column called 'split' with the values 'train' and "
                "'test'; use --outer speaker, or choose a column with --column split=HEADER."
            )
        elif outer == "split":
            splits = sorted(set(self.splits or ()))
            for part in ("train", "test"):
                if part not in splits:
                    values = ", ".join(map(repr, splits[:10]))
                    problems.add(
                        f"--outer split needs {part!r} rows; the values there are {values}."
                    )
        elif outer == "session" and self.sessions is None:
            problems.add(
                "--outer session needs a column called 'session', or IEMOCAP's utterance ids; "
                "use --outer speaker, or choose a column with --column session=HEADER."
            )
        else:
            kind = "session" if outer == "session" else "speaker"
            names = self.sessions if outer == "session" else self.speakers
            groups = sorted({*(names or ())} - {""})
            needed = outer if isinstance(outer, int) else MIN_GROUPS
            if len(groups) < needed:
                named = f" ({', '.join(map(repr, groups))})" if 0 < len(groups) < 10 else ""
                problems.add(
                    f"--outer {outer} needs at least {needed} {kind}s, but there "
                    f"{'is' if len(groups) == 1 else 'are'} {len(groups)}{named}; "
                    "hold out another unit with --outer, or add recordings."
                )

    def warn(self, labels: Sequence[str], warnings: list[str]) -> None:
        """Warn of too few utterances or speakers per class.

        - labels: Name of the class of each row.
        """
        if len(set(self.speakers)) == len(self.speakers):
            warnings.append("Every utterance has a speaker of its own: are these speakers?")
        speakers_of: dict[str, set[str]] = {}
        for speaker, label in sorted(set(zip(self.speakers, labels, strict=True))):
            speakers_of.setdefault(label, set()).add(speaker)
        for label, group in speakers_of.items():
            if len(group) == 1:
                warnings.append(
                    f"Class {label!r} occurs with speaker {next(iter(group))!r} only: nothing "
                    "is left to learn it from when that speaker is held out."
                )


def read_people(
    cells: Mapping[str, Sequence[str]], kept: Sequence[int], warnings: list[str], *, needed: str
) -> _People:
    """Read speakers and sessions from the columns, else from IEMOCAP's ids."""
    values = {role: [cells[role][i] for i in kept] for role in cells}
    origins = _read_origins(cells.get("utterance", ()))
    if origins:
        if "speaker" in values:
            _compare_origins(values["speaker"], [origins[i] for i in kept], warnings)
        absent = [role for role in ("speaker", "session", "dialogue") if role not in values]
        values |= {role: [getattr(origins[i], role) for i in kept] for role in absent}
        if absent:
            warnings.append(
                f"No column gives the {' or the '.join(absent)}: read from the utterance ids, "
                "which are IEMOCAP's."
            )
    sessions = values.get("session")
    if sessions and needed != "session" and not all(sessions):
        n_without = sessions.count("")
        warnings.append(
            f"Sessions are not used: {n_without:,} of {len(kept):,} rows have none."
        )
        sessions = None
    splits = values.get("split")
    if splits:
        # Like headers, the two parts with a meaning are recognised in any case.
        parts = {"train", "test"}
        splits = [part.casefold() if part.casefold() in parts else part for part in splits]
    return _People(values.get("speaker", []), sessions, values.get("dialogue"), splits)


def _compare_origins(
    speakers: Sequence[str], origins: Sequence[_Origin], warnings: list[str]
) -> None:
    # Names in the column are free, as long as each is one person by the ids, and vice versa.
    pairs = set(zip(speakers, (origin.speaker for origin in origins), strict=True))
    for column_first in (True, False):
        names: dict[str, list[str]] = {}
        for in_column, in_id in sorted(pairs):
            key, name = (in_column, in_id) if column_first else (in_id, in_column)
            names.setdefault(key, []).append(name)
        mixed = [key for key in names if len(names[key]) > 1]
        if mixed:
            several = " and ".join(map(repr, names[mixed[0]][:3]))
            column, ids = (repr(mixed[0]), several) if column_first else (several, mixed[0])
            warnings.append(
                f"The speaker column and the utterance ids disagree: {column} in the column is "
                f"{ids} after the ids, whose last part is the speaker in IEMOCAP."
            )
            return
