"""Who speaks, and in which session, as IEMOCAP writes it into its utterance ids."""

import re
from collections.abc import Sequence
from typing import NamedTuple

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
