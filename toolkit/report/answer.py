"""The summary, hedged by the tests, and the caveats that the numbers give reason for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from toolkit.report.document import (
    Cell,
    Figure,
    Items,
    Paragraph,
    Section,
    count_words,
    format_interval,
    format_number,
    format_p,
    isolate,
    join_names,
    render_template,
)
from toolkit.report.facts import StudyFacts, format_points
from toolkit.report.searches import search_limits
from toolkit.systems import BEST_SINGLE, MAJORITY, NO_INFORMATION, System, logistic_name
from toolkit.validation import Score
from toolkit.validation.comparison import ALPHA

#: With fewer speakers an interval is wide and a test has little power.
_FEW_SPEAKERS: Final = 10
#: Above this share of the utterances one speaker decides the pooled difference, and exchanging
#: whole speakers cannot tell the person from the size (studies/benchmarks/claims.py).
_LARGE_SHARE: Final = 0.2
_MOST_NAMED: Final = 6


def summary_section(facts: StudyFacts) -> Section:
    """Give the primary system, the highest score and the baselines, in words and one figure."""
    if not facts.systems:
        text = "No system has finished all its folds yet: there are no results."
        return Section("summary", "Summary", (Paragraph(text, "warning"),))
    note = (
        "A difference counts as shown where the adjusted p is at most .05. Tests and "
        "intervals treat each speaker as a whole."
    )
    lead, results = Paragraph(_lead(facts), "lead"), Items(tuple(_results(facts)))
    parts = (lead, results, _scores_figure(facts), Paragraph(note))
    return Section("summary", "Summary", parts)


def _lead(facts: StudyFacts) -> str:
    """Give the score of the primary system."""
    history = facts.data["primary"]
    changed = ""
    if len(history) > 1:
        changed = (
            f" The primary system was {history[0]} at the first run. It was changed to "
            f"{facts.primary} after results existed."
        )
    if facts.primary not in facts.systems:
        return f"The primary system, {facts.primary}, is not finished yet.{changed}"
    score = facts.score(facts.primary)
    interval = format_interval(score.low, score.high) or "(too few speakers for an interval)"
    return (
        f"The primary system, {facts.primary}{_describe_model(facts)}, reaches "
        f"{facts.metric.title} {format_number(score.value)} {interval} on unseen speakers "
        f"({_describe_held_out(facts)}).{changed}"
    )


def _describe_model(facts: StudyFacts) -> str:
    """Name the kind of model of the primary system, in brackets; empty for a late fusion."""
    records = facts.params.get(facts.primary, {}).values()
    models = [record["record"] for record in records if "record" in record]
    if not models:
        return ""
    linear = any("linear" in record for record in models)
    return f" (boosted trees{' and a linear part' if linear else ''})"


def _describe_held_out(facts: StudyFacts) -> str:
    """Count the tested speakers and give the groups in which they were held out."""
    outer, content, _ = str(facts.options["outer"]).partition("+")
    people = count_words(facts.n_speakers, "speaker")
    if outer == "split":
        return f"{people}, held out by the split of the data"
    if content:
        whom = {"speaker": "each", "session": "session by session"}.get(outer, "in groups")
        return f"{people}, {whom} held out together with the content of the tested utterances"
    if outer == "speaker":
        return f"{people}, each held out in turn"
    kind = "session" if outer == "session" else "group"
    return f"{people}, held out in {count_words(len(facts.folds), kind)}"


def _results(facts: StudyFacts) -> Iterator[str]:
    """Give the highest score, and the primary system's differences from its references."""
    yield _highest(facts)
    primary = facts.primary
    if primary in facts.repeated:
        mean = facts.score(primary, kind="mean over seeds")
        text = Cell.of(mean).text
        spread = format_number(facts.score(primary, kind="sd over seeds").value)
        yield (
            f"{primary} over {mean.n} seeds: mean {text}, SD over seeds {spread}. The "
            "score above is that of the first seed. Differences below are of means over seeds."
        )
    if primary in facts.systems:
        yield _compare(facts, primary, facts.baseline, _name_baseline(facts))
        logistic = logistic_name(primary)
        if logistic in facts.predictions:
            score = format_number(facts.score(logistic).value)
            reference = f"{logistic} ({score}), a logistic regression on the same features"
            yield _compare(facts, primary, logistic, reference)
    if facts.fused and BEST_SINGLE in facts.predictions:
        fused, *others = _find_best(facts, facts.fused)
        choices = facts.params.get(BEST_SINGLE, {}).values()
        taken = Counter(choice["modality"] for choice in choices)
        chosen = join_names([name for name, _ in taken.most_common()])
        score = format_number(facts.score(BEST_SINGLE).value)
        why = f"the modality with the best out-of-fold score per fold ({chosen})"
        reference = f"{BEST_SINGLE} ({score}), {why}"
        verdict = _compare(facts, fused, BEST_SINGLE, reference)
        also = f" (equal: {join_names(others)})" if others else ""
        yield f"Best of {count_words(len(facts.fused), 'fusion')}: {fused}{also}. {verdict}"
    elif len(facts.modalities) > 1:
        first = _find_best(facts, facts.modalities)[0]
        second = _find_best(facts, [name for name in facts.modalities if name != first])[0]
        verdict = _compare(facts, first, second, f"the next modality, {second}")
        yield f"Best modality: {first}. {verdict}"
    if primary in facts.systems:
        for system in facts.outside:
            verdict = _compare(facts, system, primary, f"the primary system, {primary}")
            yield f"From outside: {_name_score(facts, system)}. {verdict}"


def _highest(facts: StudyFacts) -> str:
    """Name the systems with the best score of the table, boosted or not."""
    table = [*facts.systems, *facts.baselines]
    equal = _find_best(facts, table)
    highest = "Highest score" if facts.metric.direction == "maximize" else "Lowest loss"
    names = [f"{n} (from outside)" if n in facts.outside else n for n in equal]
    named = f"{highest} of {count_words(len(table), 'system')}: {join_names(names)}"
    if facts.primary in equal:
        return f"{named}."
    boosted = _find_best(facts, facts.own)[0]
    others = "" if boosted in equal else f" Best boosted system: {_name_score(facts, boosted)}."
    text = Cell.of(facts.score(equal[0])).text
    return (
        f"{named}, {text}. It was selected on these data, so its score is optimistic on "
        f"average.{others}"
    )


def _find_best(facts: StudyFacts, systems: Sequence[str]) -> list[str]:
    """Find the systems with the best pooled score."""
    best = max(facts.sign * facts.score(name).value for name in systems)
    return [name for name in systems if facts.sign * facts.score(name).value == best]


def _name_score(facts: StudyFacts, system: str) -> str:
    return f"{system}, {format_number(facts.score(system).value)}"


def _mean_score(facts: StudyFacts, system: str) -> Score:
    """Pick the number that comparisons are about: the mean over seeds, if there are any."""
    kind = "mean over seeds" if system in facts.repeated else ""
    return facts.score(system, kind=kind)


def _gain(facts: StudyFacts, a: str, b: str) -> float:
    """Compute by how much one system is better than another; above 0 for losses too."""
    return facts.sign * (_mean_score(facts, a).value - _mean_score(facts, b).value)


def _name_baseline(facts: StudyFacts) -> str:
    """Name the better baseline with its score."""
    names = {MAJORITY: "the majority baseline", NO_INFORMATION: "the no-information rate"}
    return f"{names[facts.baseline]} ({format_number(facts.score(facts.baseline).value)})"


def _compare(facts: StudyFacts, system: str, other: str, reference: str) -> str:
    """Give the difference of two systems, its interval and the verdict of its test."""
    pair = facts.compare(system, other)
    gain = _gain(facts, system, other)
    size = "the same score"
    if gain:
        loss = facts.metric.direction == "minimize"
        words = ("better", "worse") if loss else ("higher", "lower")
        text = format_points(abs(gain), facts.metric.name, sign=False)
        size = f"{text}{'' if loss else ' points'} {words[gain < 0]}"
    if pair is None:
        return f"Against {reference}: {size}, not tested."
    if pair.low is not None and pair.high is not None:
        ends = sorted((facts.sign * pair.low, facts.sign * pair.high))
        low, high = (format_points(end, facts.metric.name) for end in ends)
        size += f" [{low}, {high}]"
    if pair.shows_difference:
        found = "a difference was shown"
    elif pair.smallest_p > ALPHA:
        # With few groups there are few exchanges, so no p can be small.
        found = (
            f"not decidable with {count_words(pair.n_speakers, 'speaker')}, since p cannot "
            f"fall below {format_p(pair.smallest_p)}"
        )
    else:
        found = "no difference was shown"
    tested = f"adjusted p = {format_p(pair.p_adjusted)}".replace("= <", "<")
    return f"Against {reference}: {size}; {found} ({tested})."


def _scores_figure(facts: StudyFacts) -> Figure:
    words = [f"{system} {Cell.of(facts.score(system)).text}" for system in facts.systems]
    baseline = f"{facts.baseline} {format_number(facts.score(facts.baseline).value)}"
    published = [
        f"{each['system']} {format_number(each['value'])} (published, {each['protocol']})"
        for each in facts.published
        if each["metric"] == facts.metric.name
    ]
    outside = " Green: from outside, not audited." if facts.outside else ""
    drawn = " Diamonds: published, by other protocols, not tested." * bool(published)
    return Figure(
        "scores",
        f"{facts.metric.title} of every system over all held-out utterances, "
        f"{facts.intervals}. Grey: baselines; dashed: {facts.baseline}, the better "
        f"constant one.{outside}{drawn}",
        f"{facts.metric.title}: {'; '.join([*words, *published, baseline])}.",
    )


def caveats_section(facts: StudyFacts) -> Section:
    """List the caveats that the study's own numbers give reason for."""
    table = facts.predictions[MAJORITY]
    names, counts = np.unique(table.speakers, return_counts=True)
    tested, untrained = {}, dict[tuple[str, tuple[str, ...]], list[str]]()
    for code, name in enumerate(table.classes):
        tested[name] = set(table.fold_names()[table.labels == code].tolist())
        for system in facts.searches:
            folds = facts.params[system].items()
            absent = [f for f, each in folds if name in each["record"]["absent_classes"]]
            if absent:
                untrained.setdefault((name, tuple(sorted(absent))), []).append(system)
    is_score = facts.metric.direction == "maximize"
    every = [*facts.systems, *facts.baselines]
    undecided, below = _compare_baseline(facts)
    text = render_template(
        "caveats.txt",
        facts=facts,
        outer=str(facts.options["outer"]),
        outside=facts.options.get("outside", {}),
        n_tested=len(table),
        speaker=str(names[counts.argmax()]),
        largest=int(counts.max()),
        large_share=_LARGE_SHARE,
        few_speakers=_FEW_SPEAKERS,
        alpha=ALPHA,
        absent_of={n: int((~facts.predictions[n].present).sum()) for n in facts.modalities},
        untested={name: sorted(set(facts.folds) - folds) for name, folds in tested.items()},
        untrained=untrained,
        baseline=_name_baseline(facts) if facts.systems else "",
        undecided=undecided,
        below=below,
        perfect=[name for name in every if is_score and facts.score(name).value == 1],
        bounded=any(
            "a bound" in each.method and (each.system in facts.systems or each.scope == "all")
            for each in facts.scores
        ),
        beaten=list(_beaten_systems(facts)),
        limits=search_limits(facts),
        count=count_words,
        p=format_p,
        join=join_names,
        isolate=lambda name: " ".join(isolate(name).split()),
        name_folds=lambda folds: _name_folds(folds, len(facts.folds)),
    )
    return Section("caveats", "Caveats", (Items(tuple(text.splitlines())),))


def _name_folds(folds: Sequence[str], n: int) -> str:
    if len(folds) > _MOST_NAMED:
        return f"{len(folds)} of {n} folds"
    return f"fold{'s' * (len(folds) > 1)} {join_names(folds)}"


def _compare_baseline(facts: StudyFacts) -> tuple[dict[str, float], list[str]]:
    """Find systems without a shown difference, with their p, and those that are worse."""
    undecided, below = {}, []
    for system in facts.systems:
        pair = facts.compare(system, facts.baseline)
        if pair is not None and not pair.shows_difference:
            undecided[system] = pair.p_adjusted
        elif pair is not None and _gain(facts, system, facts.baseline) < 0:
            below.append(system)
    return undecided, below


def _beaten_systems(facts: StudyFacts) -> Iterator[str]:
    """Name the systems below their logistic regression."""
    for system in facts.systems:
        logistic = logistic_name(system)
        # Behind an ensemble there is no logistic regression of its own.
        own = logistic in facts.predictions and not System.parse(system).variant
        if own and _gain(facts, logistic, system) > 0:
            pair = facts.compare(system, logistic)
            shown = pair is not None and pair.shows_difference
            yield (
                f"{system} ({format_number(facts.score(logistic).value)} against "
                f"{format_number(_mean_score(facts, system).value)}; "
                f"{'the' if shown else 'no'} difference was shown)"
            )
