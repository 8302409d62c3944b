"""Speakers and sessions of the utterances, and checks that they suffice for outer folds."""

import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from toolkit.data.csv_table import CONTROL, Problems
from toolkit.data.labels import canonical_name
from toolkit.data.roles import MAX_LENGTH

# Busso et al. (2008), IEMOCAP: interactive emotional dyadic motion capture database, Language
# Resources and Evaluation 42(4). The letter after the session number is the person with the
# markers, not the speaker: both partners of Ses01F_impro01 are recorded under that name, and
# only the last part of an id is the speaker's.
_UTTERANCE = re.compile(
    r"(?P<dialogue>(?P<session>Ses(?P<number>[0-9]{2}))[FM]_(?P<content>[a-z]+[0-9]{2})"
    r"[0-9a-z_]*)"
    r"_(?P<gender>[FM])[0-9A-Z]+"
)


class _Origin(NamedTuple):
    """Speaker, session, dialogue and script or scene in an id of IEMOCAP."""

    speaker: str
    session: str
    dialogue: str
    # The takes and parts of a script, and the sessions, play the same content.
    content: str


def _read_origins(utterances: Sequence[str]) -> list[_Origin] | None:
    """Read the origin of each utterance from its id; None unless all ids are IEMOCAP's."""
    found = [_UTTERANCE.fullmatch(utterance) for utterance in utterances]
    origins = [
        _Origin(m["gender"] + m["number"], m["session"], m["dialogue"], m["content"])
        for m in found
        if m is not None
    ]
    return origins if origins and len(origins) == len(found) else None


# Names that tell people of one session apart, and not those of several.
_LOCAL_NAME = re.compile(
    r"(speaker|spk|sp|s|subject|subj|person|participant|p)?[-_]?([0-9]{1,3}|[a-z])"
    r"|left|right|host|guest|(inter)?viewe[re]|interviewer|caller|callee|agent|customer"
    r"|client|therapist|doctor|patient|teacher|student|mother|father|child|self|other"
    r"|male|female|man|woman"
)
_MOST_NAMED = 5
_KEY = "session+speaker"

MIN_GROUPS = 3
"""One group to hold out, one to validate on, one to learn from."""


class _People(NamedTuple):
    """Speaker, session, dialogue, part and content per row; empty or None if unknown."""

    speakers: list[str]
    sessions: list[str] | None
    dialogues: list[str] | None
    splits: list[str] | None
    contents: list[str] | None = None

    def as_arrays(self) -> dict[str, Any]:
        """Give these fields of a manifest."""
        found = self._asdict().items()
        return {name: None if names is None else np.array(names) for name, names in found}

    def check_groups(self, outer: str | int, problems: Problems, *, key: str = _KEY) -> None:
        """Check that there are enough groups for the outer folds.

        - key: Headers of sessions and speakers, as ``--column speaker=`` joins them.
        """
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
                other = "speaker" if kind == "session" else "session"
                others = {*((self.speakers if kind == "session" else self.sessions) or ())}
                remedy = f"add recordings of other {kind}s."
                if len(others - {""}) >= MIN_GROUPS:
                    remedy = f"hold out {other}s with --outer {other}, or {remedy}"
                if isinstance(outer, int) and len(groups) >= MIN_GROUPS:
                    remedy = f"lower the number, or {remedy}"
                problems.add(
                    f"--outer {outer} needs at least {needed} {kind}s, but there "
                    f"{'is' if len(groups) == 1 else 'are'} {len(groups)}{named}; "
                    f"{remedy}{self._doubt_names(key)}"
                )

    def check_content(self, problems: Problems) -> None:
        """Check that there is content to hold out."""
        found = sorted({*(self.contents or ())} - {""})
        if self.contents is None:
            problems.add(
                "--outer with +content needs a column called 'scene', 'script', 'sentence', "
                "'statement', 'prompt', 'item' or 'content', or IEMOCAP's utterance ids; "
                "choose a column with --column content=HEADER, or leave +content out."
            )
        elif len(found) < MIN_GROUPS:
            problems.add(
                f"--outer with +content needs at least {MIN_GROUPS} contents, as it needs as "
                f"many speakers; here are {', '.join(map(repr, found))}. Leave "
                "+content out, or choose another column with --column content=HEADER."
            )

    def _doubt_names(self, key: str) -> str:
        """Doubt names that begin again in each session, such as A and B; empty if none do."""
        if not self.sessions or not self.speakers:
            return ""
        pairs = {*zip(self.speakers, self.sessions, strict=True)}
        sessions_of = Counter(speaker for speaker, _ in pairs)
        several = sorted(name for name, count in sessions_of.items() if count > 1)
        local = [name for name in several if _LOCAL_NAME.fullmatch(canonical_name(name))]
        if not local or 2 * len(local) < len(sessions_of):
            return ""
        named = ", ".join(map(repr, local[:_MOST_NAMED])) + ", ..." * (len(local) > _MOST_NAMED)
        return (
            f" Speakers {named} occur in several sessions. If a name is another person in each "
            f"session, join it with the session: --column speaker={shlex.quote(key)}."
        )

    def warn(self, labels: Sequence[str], warnings: list[str], *, key: str = _KEY) -> None:
        """Warn of speakers that are perhaps none, and of too few speakers per class.

        - labels: Name of the class of each row.
        - key: As in :meth:`check_groups`.
        """
        if doubt := self._doubt_names(key):
            warnings.append(doubt.strip())
        if len(set(self.speakers)) == len(self.speakers):
            warnings.append(
                "Every utterance has a speaker of its own: are these speakers? Name their "
                "column with --column speaker=HEADER."
            )
        elif len(set(zip(self.speakers, labels, strict=True))) == len(set(self.speakers)):
            warnings.append(
                "Each speaker has a single label: here, recognising a person and knowing the "
                "label are the same thing."
            )
        pairs = sorted(set(zip(self.speakers, labels, strict=True)))
        speakers_of = Counter(label for _, label in pairs)
        single = [pair for pair in pairs if speakers_of[pair[1]] == 1]
        warnings.extend(
            f"Class {label!r} occurs with speaker {speaker!r} only: nothing is left to learn "
            "it from when that speaker is held out."
            for speaker, label in single[:_MOST_NAMED]
        )
        if (more := len(single) - _MOST_NAMED) > 0:
            warnings.append(f"Classes that occur with one speaker only: {more:,} more.")


def read_people(
    cells: Mapping[str, Sequence[str]],
    kept: Sequence[int],
    warnings: list[str],
    *,
    needed: Collection[str],
) -> _People:
    """Read speakers, sessions and content from the columns, else from IEMOCAP's ids."""
    values = {role: [cells[role][i] for i in kept] for role in cells}
    origins = _read_origins(cells.get("utterance", ()))
    if origins:
        if "speaker" in values:
            _compare_origins(values["speaker"], [origins[i] for i in kept], warnings)
        roles = ("speaker", "session", "dialogue", "content")
        absent = [role for role in roles if role not in values]
        values |= {role: [getattr(origins[i], role) for i in kept] for role in absent}
        if absent:
            plural, listed = "s" * (len(absent) > 1), ", ".join(absent)
            warnings.append(
                f"The table has no column{plural} {' and '.join(listed.rsplit(', ', 1))}. "
                f"{'They were' if plural else 'It was'} read from the ids, which look like "
                f"IEMOCAP's (Ses01F_impro01_F001). Add the column{plural} if that is wrong."
            )
    sessions = values.get("session")
    if sessions and "session" not in needed and not all(sessions):
        n = sessions.count("")
        warnings.append(f"Sessions are not used: {n:,} of {len(kept):,} rows have none.")
        sessions = None
    contents = values.get("content")
    named = [
        0 < len(cell) <= MAX_LENGTH and not CONTROL.search(cell) for cell in contents or ()
    ]
    if "content" not in needed and not all(named):
        warnings.append(
            f"The content is not used: {named.count(False):,} of {len(kept):,} rows have no "
            f"name of it in one line of at most {MAX_LENGTH} characters."
        )
        contents = None
    splits = values.get("split")
    if splits:
        # Like headers, the two parts with a meaning are recognised in any case.
        parts = {"train", "test"}
        splits = [part.casefold() if part.casefold() in parts else part for part in splits]
    speakers, dialogues = values.get("speaker", []), values.get("dialogue")
    return _People(speakers, sessions, dialogues, splits, contents)


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
        if mixed := [key for key in names if len(names[key]) > 1]:
            several = " and ".join(map(repr, names[mixed[0]][:3]))
            column, ids = (repr(mixed[0]), several) if column_first else (several, mixed[0])
            warnings.append(
                f"The speaker column and the utterance ids disagree: {column} in the column is "
                f"{ids} after the ids, whose last part is the speaker in IEMOCAP."
            )
            return
