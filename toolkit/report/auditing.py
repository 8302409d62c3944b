"""The leakage audit: what was fitted and chosen, and the verdict on it."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from toolkit.report.parts import Cell, Paragraph, Section, Table
from toolkit.report.words import count_words
from toolkit.validation import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.report.facts import StudyFacts

_MEANING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bin edges": "gave the edges of bins (no label is looked at)",
        "screen": "decided which features are kept",
        "resample parent": "were copied, or had rows made between them",
        "train": "taught a booster, a regression, class shares",
        "validate": "were predicted by an inner fit without them",
        "early stop": "decided when an inner fit stops, and the rounds",
        "choose": "decided between hyperparameters or modalities",
        "calibrate": "moved the class offsets",
        "fuse": "set fusion weights or a stacker",
        "explain background": "are what contributions are measured against",
    }
)


def audit_section(facts: StudyFacts) -> Section:
    """Give the leakage ledger's verdict, and what it rests on."""
    audit = facts.audit
    tested, final = Counter[str](), Counter[str]()
    for system in audit["systems"].values():
        tested.update(system["by_role"])
    for system in audit["final_models"].values():
        final.update(system["by_role"])
    text = (
        f"Every fit and every choice wrote down the utterances that it touched before it "
        f"began: {tested.total():,} times in {count_words(len(audit['systems']), 'system')}. "
        f"No utterance of a {audit['held_out_unit']} held out may be among them, none may "
        f"teach an inner fit that it judges, every utterance is tested at most once, and all "
        f"systems are scored on the same utterances in the same folds. Verdict: "
        f"{audit['verdict']}. toolkit audit derives it again from the files of the study."
    )
    rows = tuple(
        (
            Cell(role),
            Cell(_MEANING[role]),
            Cell(f"{tested[role]:,}", tested[role]),
            Cell(f"{final[role]:,}", final[role]),
        )
        for role in ROLES
        if tested[role] or final[role]
    )
    table = Table(
        "ledger",
        "Fits and choices by what utterances were to them",
        ("role", "these utterances", "tested systems", "final models"),
        rows,
        note="The final models learn from everybody and are tested on nobody here.",
    )
    return Section("audit", "Leakage audit", (Paragraph(text), table))
