"""Systems from outside and published scores: rows, notes and caveats that mark them."""

from collections.abc import Iterator, Sequence

from toolkit.report.document import Row, Table, count_words, make_table
from toolkit.report.facts import OUTSIDE, PUBLISHED, StudyFacts
from toolkit.validation import METRICS


def note_marks(facts: StudyFacts) -> str:
    """Explain the marks of a table of scores; empty where it has none."""
    note = ""
    if facts.outside:
        note += (
            f" {OUTSIDE}: brought from outside, or fused with such a system; the audit cannot "
            "vouch for it."
        )
    if facts.published:
        note += (
            f" {PUBLISHED}: published, by the protocol after the mark, and never tested here."
        )
    return note


def list_published(facts: StudyFacts, metrics: Sequence[str]) -> list[Row]:
    """List a row per published system and protocol, with a column per metric and one for n."""
    rows: dict[str, Row] = {}
    for each in facts.published:
        if each["metric"] in metrics:
            title = f"{each['system']} {PUBLISHED} {each['protocol']}"
            row = rows.setdefault(title, [title, *[None] * (len(metrics) + 1)])
            row[1 + metrics.index(each["metric"])] = each["value"]
    return list(rows.values())


def published_table(facts: StudyFacts) -> Table:
    """List the published scores with their protocols and sources."""
    rows: list[Row] = [
        [each["system"], METRICS[each["metric"]].title]
        + [each[key] for key in ("value", "protocol", "source")]
        for each in facts.published
    ]
    note = (
        "Other utterances, folds and features may be behind these scores, so no difference is "
        "tested. The weighted accuracy (WA) of emotion research is the share of right "
        "decisions: F1-micro, where each utterance has one label."
    )
    header = ["system", "metric", "score", "protocol", "source"]
    return make_table("published", "Published scores.", header, rows, note=note)


def outside_caveats(facts: StudyFacts) -> Iterator[str]:
    """Name each system from outside, and the limits of its scores and fusions."""
    for name, about in facts.options.get("outside", {}).items():
        folds = "no folds, so nothing shows that its models never saw the tested speakers"
        if about["folds"] is not None:
            unit = facts.audit["held_out_unit"]
            folds = f"{count_words(about['folds'], 'fold')} of whole {unit}s"
        yield (
            f"{name} was brought from outside ({about['file']}). The audit cannot vouch for it "
            f"or its fusions ({OUTSIDE}): the file names {folds}."
        )
        if f"stacked+{name}" in facts.predictions:
            yield (
                f"stacked+{name} is not fully nested: its weights rest on predictions of "
                f"{name} for training speakers, by models that were trained on the tested ones."
            )
