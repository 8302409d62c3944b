"""The model card: what the final models learnt from, how good they are, and where they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from toolkit.report import Report, Section, format_markdown
from toolkit.report.answer import doubts_section
from toolkit.report.document import (
    Items,
    Paragraph,
    Table,
    count_cell,
    count_words,
    make_table,
    number_cell,
)
from toolkit.report.page import escape_markdown
from toolkit.report.performance import scores_table
from toolkit.report.protocol import data_section, describe_study, protocol_section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.report import StudyFacts

_UNSAID: Final = (
    "Not said yet: who may use these models for what is for their author to say. Write it into "
    "intended_use.md beside this file; toolkit report then puts it here."
)
_LIMITS: Final = (
    (
        "The scores are those of the procedure, measured on people held out of everything; the "
        "final models were fitted on everybody by the same procedure and were scored on nobody."
    ),
    (
        "Nothing is known of other languages, cultures, recording conditions or feature "
        "extractors than those of the data below."
    ),
    "A label is what annotators or actors gave, not what a person feels.",
    (
        "What is said of a speaker who was in training is no prediction for a person never "
        "seen; toolkit predict marks those rows."
    ),
    (
        "Load models only from where you trust them: the boosters' own formats are read by "
        "native code. toolkit predict checks their checksums first."
    ),
)


def format_card(facts: StudyFacts, finals: Mapping[str, Any], use: str | None) -> str:
    """Write the model card."""
    doubts = [part for part in doubts_section(facts).parts if isinstance(part, Items)]
    limits = (*_LIMITS, *(text for part in doubts for text in part.texts))
    sections = (
        Section("use", "Intended use", (Paragraph(_UNSAID),)),
        Section("models", "Models", (_models_table(finals), Paragraph(_describe_late(finals)))),
        Section("scores", "Scores on people never seen", (scores_table(facts),)),
        Section("limits", "Limits", (Items(limits),)),
        data_section(facts),
        protocol_section(facts),
    )
    study = describe_study(facts.data, len(facts.speakers), sum(map(sum, facts.counts)))
    card = format_markdown(Report("Model card", study, bool(facts.data["generated"]), sections))
    # The author's own words are Markdown already.
    return card.replace(escape_markdown(_UNSAID), use.strip(), 1) if use else card


def _models_table(finals: Mapping[str, Any]) -> Table:
    return make_table(
        "models",
        "Models fitted on every speaker, with hyperparameters chosen by the same inner search.",
        ["system", "sees", "booster", "rounds", "trials", "inner score", "file"],
        [
            [
                system,
                ", ".join(said["modalities"]),
                said["params"]["booster"],
                count_cell(said["n_rounds"]),
                count_cell(said["trials_done"]),
                number_cell(said["inner_score"]),
                f"models/{system}/{min(said['files'], key=len)}",
            ]
            for system, said in finals["systems"].items()
        ],
        note="The inner score chose the parameters, so it is optimistic: quote those below.",
    )


def _describe_late(finals: Mapping[str, Any]) -> str:
    fusion = finals["fusion"]
    late = ([] if fusion["best-single"] is None else ["best-single"]) + fusion["methods"]
    if not late:
        return "There is one modality: nothing is fused. Class offsets: models/final.json."
    return (
        f"{count_words(len(late), 'late system')} ({', '.join(late)}) and all class offsets "
        "were learnt from out-of-fold predictions of every speaker and stand in "
        "models/final.json."
    )
