"""The summary, hedged by the tests, and the caveats that the numbers give reason for."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from toolkit.report.document import (
    Figure,
    Items,
    Paragraph,
    Section,
    count_words,
    format_interval,
    format_number,
    format_p,
    format_share,
    isolate,
    join_names,
    score_cell,
)
from toolkit.report.facts import StudyFacts, format_points
from toolkit.report.searches import search_caveats
from toolkit.systems import BEST_SINGLE, MAJORITY, NO_INFORMATION, System, logistic_name
from toolkit.validation.comparison import ALPHA

#: With fewer speakers an interval is wide and a test has little power.
_FEW_SPEAKERS: Final = 10
#: Above this share of the utterances one speaker decides the pooled difference, and exchanging
#: whole speakers cannot tell the person from the size (studies/benchmarks/claims.py).
_LARGE_SHARE: Final = 0.2
_MOST_NAMED: Final = 6
_INTERVALS: Final = (
    "The intervals describe new speakers for the fitted systems. They leave out the variance "
    "over training sets and seeds."
)
_FIRST_SEED: Final = (
    "Late fusions, logistic regressions, explanations and final models are of the first seed "
    "alone."
)


def summary_section(facts: StudyFacts) -> Section:
    """Give the primary system, the highest score and the baselines, in words and one figure."""
    if not facts.systems:
        text = "No system has finished all its folds yet: there are no results."
        return Section("summary", "Summary", (Paragraph(text, "warning"),))
    note = (
        "A difference counts as shown where the adjusted p is at most .05. Tests and "
        "intervals treat each speaker as a whole."
    )
    return Section(
        "summary",
        "Summary",
        (
            Paragraph(_lead(facts), "lead"),
            Items(tuple(_results(facts))),
            _scores_figure(facts),
            Paragraph(note),
        ),
    )


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
        spread = format_number(facts.score(primary, kind="sd over seeds").value)
        yield (
            f"{primary} over {mean.n} seeds: mean "
            f"{score_cell(mean.value, mean.low, mean.high).text}, SD over seeds {spread}. The "
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
        fused = facts.best(facts.fused)
        choices = facts.params.get(BEST_SINGLE, {}).values()
        taken = Counter(choice["modality"] for choice in choices)
        chosen = join_names([name for name, _ in taken.most_common()])
        score = format_number(facts.score(BEST_SINGLE).value)
        reference = (
            f"{BEST_SINGLE} ({score}), the modality with the best inner score ({chosen})"
        )
        verdict = _compare(facts, fused, BEST_SINGLE, reference)
        yield f"Best of {count_words(len(facts.fused), 'fusion')}: {fused}. {verdict}"
    elif len(facts.modalities) > 1:
        first = facts.best(facts.modalities)
        second = facts.best([name for name in facts.modalities if name != first])
        verdict = _compare(facts, first, second, f"the next modality, {second}")
        yield f"Best modality: {first}. {verdict}"
    if primary in facts.systems:
        for system in facts.outside:
            verdict = _compare(facts, system, primary, f"the primary system, {primary}")
            yield f"From outside: {_name_score(facts, system)}. {verdict}"


def _highest(facts: StudyFacts) -> str:
    """Name the systems with the best score of the table, boosted or not."""
    table = [*facts.systems, *facts.baselines]
    best = facts.score(facts.best(table))
    highest = "Highest score" if facts.metric.direction == "maximize" else "Lowest loss"
    equal = [name for name in table if facts.score(name).value == best.value]
    names = [f"{n} (from outside)" if n in facts.outside else n for n in equal]
    named = f"{highest} of {count_words(len(table), 'system')}: {join_names(names)}"
    if facts.primary in equal:
        return f"{named}."
    boosted = facts.best(facts.own)
    others = "" if boosted in equal else f" Best boosted system: {_name_score(facts, boosted)}."
    text = score_cell(best.value, best.low, best.high).text
    return (
        f"{named}, {text}. It was selected on these data, so its score is optimistic on "
        f"average.{others}"
    )


def _name_score(facts: StudyFacts, system: str) -> str:
    return f"{system}, {format_number(facts.score(system).value)}"


def _name_baseline(facts: StudyFacts) -> str:
    """Name the better baseline with its score."""
    names = {MAJORITY: "the majority baseline", NO_INFORMATION: "the no-information rate"}
    return f"{names[facts.baseline]} ({format_number(facts.score(facts.baseline).value)})"


def _compare(facts: StudyFacts, system: str, other: str, reference: str) -> str:
    """Give the difference of two systems, its interval and the verdict of its test."""
    pair = facts.compare(system, other)
    gain = facts.gain(system, other)
    size = "the same score"
    if gain:
        loss = facts.metric.direction == "minimize"
        words = ("better", "worse") if loss else ("higher", "lower")
        text = format_points(abs(gain), facts.metric.name, sign=False)
        size = f"{text}{'' if loss else ' points'} {words[gain < 0]}"
    if pair is None:
        return f"Against {reference}: {size}, not tested."
    if pair.low is not None and pair.high is not None:
        turn = facts.sign * (1 if pair.a == system else -1)
        ends = sorted((turn * pair.low, turn * pair.high))
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
    words = []
    for system in facts.systems:
        score = facts.score(system)
        words.append(f"{system} {score_cell(score.value, score.low, score.high).text}")
    baseline = f"{facts.baseline} {format_number(facts.score(facts.baseline).value)}"
    words += [
        f"{each['system']} {format_number(each['value'])} (published, {each['protocol']})"
        for each in facts.published
        if each["metric"] == facts.metric.name
    ]
    outside = " Green: from outside, not audited." if facts.outside else ""
    published = " Diamonds: published, by other protocols, not tested." * bool(facts.published)
    return Figure(
        "scores",
        f"{facts.metric.title} of every system over all held-out utterances, with 95 % "
        f"intervals over speakers. Grey: baselines; dashed: {facts.baseline}, the better "
        f"constant one.{outside}{published}",
        f"{facts.metric.title}: {'; '.join(words)}; {baseline}.",
    )


def caveats_section(facts: StudyFacts) -> Section:
    """List the caveats that the study's own numbers give reason for."""
    caveats = [
        *_data_caveats(facts),
        *_outside_caveats(facts),
        *_fold_caveats(facts),
        *_system_caveats(facts),
        *search_caveats(facts),
        _INTERVALS,
        *([_FIRST_SEED] if facts.repeated else []),
    ]
    return Section("caveats", "Caveats", (Items(tuple(caveats)),))


def _data_caveats(facts: StudyFacts) -> Iterator[str]:
    if facts.data["generated"]:
        yield (
            "The recordings were generated by this software with a planted signal. The "
            "numbers are no evidence about people."
        )
    names, counts = np.unique(facts.predictions[MAJORITY].speakers, return_counts=True)
    largest = counts.max() / counts.sum()
    if facts.n_speakers > 1 and largest > _LARGE_SHARE:
        yield (
            f"{isolate(str(names[counts.argmax()]))} has "
            f"{format_share(int(counts.max()), int(counts.sum()))} of the tested utterances. A "
            "difference may be about that person alone, and tests then show too many "
            "differences. In simulations 13 % were false at a share of 30 %, and 39 % at 50 %."
        )
    if facts.n_speakers < _FEW_SPEAKERS:
        yield (
            f"Only {count_words(facts.n_speakers, 'speaker')} were tested: intervals are wide "
            "and tests have little power."
        )
    if facts.has_one_label_each:
        yield (
            "Each speaker has a single label: a system that recognises the speaker also knows "
            "the label."
        )
    if facts.comparisons and facts.comparisons[0].smallest_p > ALPHA:
        smallest = format_p(facts.comparisons[0].smallest_p)
        yield (
            f"No comparison is decidable: with so few speakers p cannot fall below {smallest}."
        )
    yield from _content_caveats(facts)
    if facts.n_sessions and not str(facts.options["outer"]).startswith(("session", "split")):
        yield (
            "Speakers share sessions: a held-out speaker's dialogue partner may be in the "
            "training data, which can help a system. --outer session holds out both."
        )
    if facts.options["normalise"] == "speaker":
        yield (
            "Features were standardised within each speaker, tested ones included: the "
            "evaluation is transductive. The scores hold only if many utterances of a new "
            "speaker are available before the first prediction."
        )
    for name, each in facts.data["modalities"].items():
        same, near = each["same_as_other_speaker"], each["near_other_speaker"]
        if same:
            yield (
                f"Modality {name}: {count_words(same, 'utterance')} hold the same features as "
                "one of another speaker, who may be in the training data."
            )
        if near:
            yield (
                f"Modality {name}: {count_words(near, 'utterance')} are near-duplicates of "
                "one of another speaker (cosine of centred features at least "
                f"{each['near_cosine']}). A system can recognise such repeated lines."
            )
    for system in facts.modalities:
        # Rows without features get class priors, which count as predictions.
        table = facts.predictions[system]
        absent = int((~table.present).sum())
        if absent:
            yield (
                f"{system} is missing in {format_share(absent, len(table))} of the tested "
                "utterances, which get the class priors of the training fold."
            )


def _content_caveats(facts: StudyFacts) -> Iterator[str]:
    """Give the share of tested utterances whose content other people speak in training."""
    held_out = str(facts.options["outer"])
    if facts.n_contents > 1 and facts.n_known_content:
        share = format_share(facts.n_known_content, len(facts.predictions[MAJORITY]))
        option = "" if held_out == "split" else f"; --outer {held_out}+content prevents it"
        yield (
            f"{share} of the tested utterances have their script, scene or sentence (one of "
            f"{facts.n_contents:,}) in the training data, by other speakers. A system can "
            "recognise it and the labels that go with it. The row content of toolkit premium "
            f"measures this{option}."
        )


def _fold_caveats(facts: StudyFacts) -> Iterator[str]:
    table = facts.predictions[MAJORITY]
    names = facts.folds
    # One split tests one part of the data only.
    if len(names) == 1:
        yield ("There is a single fold: the spread over other splits of the data is unknown.")
    for code, name in enumerate(table.classes):
        tested = set(table.fold_names()[table.labels == code].tolist())
        absent = [fold for fold in names if fold not in tested]
        if absent:
            yield (
                f"No utterance of {isolate(name)} is among the test rows of "
                f"{_fold_words(absent, len(names))}."
            )
    untrained: dict[str, set[str]] = {}
    for system in facts.searches:
        for fold, record in facts.params[system].items():
            for name in record["record"]["absent_classes"]:
                untrained.setdefault(name, set()).add(fold)
    for name, lacking in untrained.items():
        yield (
            f"No utterance of {isolate(name)} was left to train on in "
            f"{_fold_words(sorted(lacking), len(names))}; its probability is 0 there."
        )


def _fold_words(folds: list[str], n: int) -> str:
    if len(folds) > _MOST_NAMED:
        return f"{len(folds)} of {n} folds"
    return f"fold{'s' * (len(folds) > 1)} {join_names(folds)}"


def _system_caveats(facts: StudyFacts) -> Iterator[str]:
    if facts.unfinished:
        yield (
            f"{join_names(facts.unfinished)} lack folds and are in no table yet. Run the same "
            "command again to finish them."
        )
    undecided, below = {}, []
    for system in facts.systems:
        pair = facts.compare(system, facts.baseline)
        if pair is not None and not pair.shows_difference:
            undecided[system] = pair.p_adjusted
        elif pair is not None and facts.gain(system, facts.baseline) < 0:
            below.append(system)
    if undecided:
        yield (
            f"No difference from {_name_baseline(facts)} was shown for "
            f"{join_names(list(undecided))} (smallest adjusted p "
            f"{format_p(min(undecided.values()))})."
        )
    if below:
        yield f"Below {_name_baseline(facts)}, which uses no feature: {join_names(below)}."
    perfect = [
        system
        for system in [*facts.systems, *facts.baselines]
        if facts.metric.direction == "maximize" and facts.score(system).value == 1
    ]
    if perfect:
        yield (
            f"Perfect score of {join_names(perfect)}. This is rare: check for labels in the "
            "features. Scores without any error have no spread over speakers, so the interval "
            "is an exact binomial bound for as many cases as speakers of equal size."
        )
    beaten = []
    for system in facts.systems:
        logistic = logistic_name(system)
        # Behind an ensemble there is no logistic regression of its own.
        own = logistic in facts.predictions and not System.parse(system).variant
        if own and facts.gain(logistic, system) > 0:
            pair = facts.compare(system, logistic)
            shown = pair is not None and pair.shows_difference
            beaten.append(
                f"{system} ({format_number(facts.score(logistic).value)} against "
                f"{format_number(facts.mean_score(system).value)}; "
                f"{'the difference was shown' if shown else 'no difference was shown'})"
            )
    if beaten:
        yield (
            "A logistic regression on the same features scores higher, so the trees do not "
            f"explain the score of {join_names(beaten)}."
        )
    off = facts.miscalibrated
    if off:
        yield (
            f"The probabilities of {join_names(off)} are not calibrated: use the decisions, "
            "not the probabilities."
        )


def _outside_caveats(facts: StudyFacts) -> Iterator[str]:
    """Name each system from outside, and the limits of its scores and fusions."""
    for name, n_folds in facts.options.get("outside", {}).items():
        folds = "no folds, so nothing shows that its models never saw the tested speakers"
        if n_folds is not None:
            folds = f"{count_words(n_folds, 'fold')} of whole {facts.audit['held_out_unit']}s"
        yield (
            f"outside+{name} was brought from outside (internal/outside/{name}.csv). The audit "
            f"cannot vouch for it or its fusions: the file names {folds}."
        )
        if (stacked := f"stacked+{name}") in facts.predictions:
            yield (
                f"{stacked} is not fully nested: its weights rest on predictions of {name} for "
                "training speakers, by models that were trained on the tested ones."
            )
