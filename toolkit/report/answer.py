"""The answer in two sentences, hedged by the tests, and the caveats of the numbers."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from toolkit.report.document import (
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
)
from toolkit.report.facts import StudyFacts, format_gain, format_points
from toolkit.report.searches import count_edges
from toolkit.systems import BEST_SINGLE, MAJORITY, NO_INFORMATION, logistic_name
from toolkit.validation import Comparison

#: Adjusted p up to which a difference counts as shown.
_ALPHA: Final = 0.05


def opening_sections(facts: StudyFacts) -> list[Section]:
    """Answer the question, and list what to distrust."""
    return [_answer_section(facts), _caveats_section(facts)]


def _answer_section(facts: StudyFacts) -> Section:
    """Answer the question of a study; name a winner only where the adjusted p is <= .05."""
    if not facts.systems:
        text = "No system has finished all its folds yet: there is no answer."
        return Section("answer", "The answer", (Paragraph(text, "warning"),))
    return Section(
        "answer",
        "The answer",
        (
            Paragraph(f"{_level(facts)} {_contrast(facts)}".strip(), "lead"),
            Paragraph(
                "A winner is named only where the adjusted p is at most .05. Planned "
                "comparisons are adjusted together: each modality and fusion with the better "
                "baseline and with its logistic regression, each fusion with best-single. All "
                "others are adjusted over all pairs. Intervals and tests take each speaker as "
                "a whole. Before using a number, read what to distrust."
            ),
        ),
    )


def _level(facts: StudyFacts) -> str:
    """Give the score of the primary system beside its baselines, then the highest score."""
    history = facts.data["primary"]
    changed = ""
    if len(history) > 1:
        changed = (
            f" The primary system was {history[0]} at the first run; it was changed to "
            f"{facts.primary} after results existed."
        )
    table = [*facts.systems, *facts.baselines]
    best = facts.best(table)
    highest = "highest score" if facts.metric.direction == "maximize" else "lowest loss"
    count = count_words(len(table), "system")
    if facts.primary not in facts.systems:
        return (
            f"The primary system, {facts.primary}, is not finished yet.{changed} So far the "
            f"{highest} of {count}, selected on these data, is that of {best}, "
            f"{format_number(facts.score(best).value)}."
        )
    score = facts.score(facts.primary)
    interval = format_interval(score.low, score.high)
    number = f"{facts.metric.title} {format_number(score.value)}" + (
        f" {interval}" if interval else " (too few speakers for an interval)"
    )
    reference = _name_baseline(facts)
    verdict = _verdict(facts, facts.primary, facts.baseline, reference, speakers=False)
    text = (
        f"On people never seen ({_describe_held_out(facts)}), {facts.primary}"
        f"{_describe_model(facts)}, the primary system, reaches {number}; {verdict}."
        f"{_added_to_logistic(facts)}{changed}"
    )
    equal = [name for name in table if facts.score(name).value == facts.score(best).value]
    if facts.primary in equal:
        others = [name for name in equal if name != facts.primary]
        shared = f" together with {join_names(others)}" if others else ""
        return f"{text} It has the {highest} of {count}{shared}."
    return (
        f"{text} The {highest} of {count}, selected on these data, is that of {best}, "
        f"{format_number(facts.score(best).value)}: a selected score is on average too good."
    )


def _describe_model(facts: StudyFacts) -> str:
    """Name the kind of model of the primary system, in brackets; empty for a late fusion."""
    records = facts.params.get(facts.primary, {}).values()
    models = [record["record"] for record in records if "record" in record]
    if not models:
        return ""
    linear = any("linear" in record for record in models)
    return f" (boosted trees{' and a linear part' if linear else ''})"


def _added_to_logistic(facts: StudyFacts) -> str:
    """Say what the primary system adds to its logistic baseline; empty where none is there."""
    logistic = logistic_name(facts.primary)
    pair = facts.compare(facts.primary, logistic)
    if pair is None:
        return ""
    turn = facts.sign * (1 if pair.a == facts.primary else -1)
    unit = "" if facts.metric.direction == "minimize" else " points"
    size = format_points(turn * pair.difference, facts.metric.name) + unit
    if pair.low is not None and pair.high is not None:
        ends = sorted((turn * pair.low, turn * pair.high))
        low, high = (format_points(end, facts.metric.name) for end in ends)
        size += f" [{low}, {high}]"
    if pair.shows_difference:
        found = "an improvement" if turn * pair.difference > 0 else "a loss"
    elif pair.smallest_p > _ALPHA:
        found = "not decidable with so few speakers"
    else:
        found = "no difference shown"
    tested = _format_adjusted(pair)
    return (
        f" To {logistic}, a logistic regression on the same features with "
        f"{format_number(facts.score(logistic).value)}, it adds {size}: {found} ({tested})."
    )


def _describe_held_out(facts: StudyFacts) -> str:
    """Count the tested speakers and give the groups in which they were held out."""
    outer, people = str(facts.options["outer"]), count_words(facts.n_speakers, "speaker")
    if outer == "speaker":
        return f"{people}, each held out in turn"
    if outer == "split":
        return f"{people}, held out by the split of the data"
    kind = "session" if outer == "session" else "group"
    return f"{people}, held out in {count_words(len(facts.folds), kind)}"


def _name_baseline(facts: StudyFacts) -> str:
    """Name the better baseline with its score."""
    names = {MAJORITY: "the majority baseline", NO_INFORMATION: "the no-information rate"}
    return f"{names[facts.baseline]} ({format_number(facts.score(facts.baseline).value)})"


def _contrast(facts: StudyFacts) -> str:
    """Compare fusion with the best modality, else the two best modalities."""
    if facts.fused and BEST_SINGLE in facts.predictions:
        fused = facts.best(facts.fused)
        taken = Counter(
            choice["modality"] for choice in facts.params.get(BEST_SINGLE, {}).values()
        )
        chosen = join_names([name for name, _ in taken.most_common()])
        reference = f"the best single modality, chosen on inner scores ({chosen})"
        lead = (
            f"Of {count_words(len(facts.fused), 'fusion')}, {fused} scores best"
            if len(facts.fused) > 1
            else f"The modalities were fused by {fused}"
        )
        return f"{lead}: {_verdict(facts, fused, BEST_SINGLE, reference)}."
    if len(facts.modalities) < 2:
        return ""
    first = facts.best(facts.modalities)
    second = facts.best([name for name in facts.modalities if name != first])
    verdict = _verdict(facts, first, second, f"{second}, the next modality")
    return f"Between modalities, {first} scores best: {verdict}."


def _format_adjusted(pair: Comparison) -> str:
    return f"adjusted p = {format_p(pair.p_adjusted)}".replace("= <", "<")


def _verdict(
    facts: StudyFacts, system: str, other: str, reference: str, *, speakers: bool = True
) -> str:
    pair = facts.compare(system, other)
    gain = facts.gain(system, other)
    if pair is None:
        return f"it was not compared with {reference}"
    tested = _format_adjusted(pair)
    tested += f", {count_words(pair.n_speakers, 'speaker')}" if speakers else ""
    size = format_gain(facts, abs(gain))
    if pair.shows_difference and gain != 0:
        verb = "beats" if gain > 0 else "is worse than"
        return f"it {verb} {reference} by {size}, {tested}"
    found = f"both score {format_number(facts.score(system).value)}"
    if gain:
        found = f"{size} {'above' if gain > 0 else 'below'}"
    if facts.metric.direction == "minimize" and gain:
        found = f"{'better' if gain > 0 else 'worse'} by {size}"
    # With few groups there are few exchanges, so no p can be small.
    if pair.smallest_p > _ALPHA:
        return (
            f"whether it differs from {reference} is not decidable with so few speakers, p "
            f"cannot fall below {format_p(pair.smallest_p)} ({found}, {tested})"
        )
    return f"no difference from {reference} was shown ({found}, {tested})"


#: With fewer speakers an interval is wide and a test has little power.
_FEW_SPEAKERS: Final = 10
#: Above this share of the utterances one speaker decides the pooled difference, and exchanging
#: whole speakers cannot tell the person from the size (studies/benchmarks/claims.py).
_LARGE_SHARE: Final = 0.2
_MOST_NAMED: Final = 6
_INTERVALS: Final = (
    "The intervals describe new speakers for the systems as they were fitted; they hold no "
    "variance over training sets or seeds."
)


def _caveats_section(facts: StudyFacts) -> Section:
    """List the caveats that the study's own numbers give reason for."""
    caveats = [
        *_data_caveats(facts),
        *_fold_caveats(facts),
        *_system_caveats(facts),
        *_search_caveats(facts),
        _INTERVALS,
    ]
    return Section("distrust", "What to distrust", (Items(tuple(caveats)),))


def _data_caveats(facts: StudyFacts) -> Iterator[str]:
    if facts.data["generated"]:
        yield (
            "The recordings were generated by this software with a planted signal: the "
            "numbers say nothing about people."
        )
    names, counts = np.unique(facts.predictions[MAJORITY].speakers, return_counts=True)
    largest = counts.max() / counts.sum()
    if facts.n_speakers > 1 and largest > _LARGE_SHARE:
        yield (
            f"{isolate(str(names[counts.argmax()]))} has "
            f"{format_share(int(counts.max()), int(counts.sum()))} of the tested utterances: a "
            "difference may be about that person alone. Tests then claim too many differences: "
            "in simulations 13 % of false ones at a share of 30 %, 39 % at 50 %."
        )
    if facts.n_speakers < _FEW_SPEAKERS:
        yield (
            f"Only {count_words(facts.n_speakers, 'speaker')} were tested: intervals are wide "
            "and rest on few people."
        )
    if facts.has_one_label_each:
        yield (
            "Each speaker has a single label: here, recognising a person and knowing the "
            "label are the same thing."
        )
    if facts.comparisons and facts.comparisons[0].smallest_p > _ALPHA:
        smallest = format_p(facts.comparisons[0].smallest_p)
        yield (
            f"No comparison is decidable: with so few speakers p cannot fall below {smallest}."
        )
    if facts.n_sessions and facts.options["outer"] not in {"session", "split"}:
        yield (
            "Speakers share sessions: a held-out speaker's dialogue partner may be in the "
            "training data, which can help a system. --outer session holds out both."
        )
    if facts.options["normalise"] == "speaker":
        yield (
            "Features were standardised within each speaker, tested ones included: the "
            "evaluation is transductive. The scores hold where many utterances of a new person "
            "are at hand before the first is judged, not where people are met one utterance "
            "at a time."
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
                f"{each['near_cosine']}): repeated lines can be recognised rather than "
                "understood."
            )
    for system in facts.modalities:
        # Rows without features get class priors, which count as predictions.
        table = facts.predictions[system]
        absent = int((~table.present).sum())
        if absent:
            yield (
                f"{system} had nothing to see for {format_share(absent, len(table))} of the "
                "tested utterances and gave class shares there."
            )


def _fold_caveats(facts: StudyFacts) -> Iterator[str]:
    table = facts.predictions[MAJORITY]
    names = facts.folds
    # One split tests one part of the data only.
    if len(names) == 1:
        yield (
            "There is a single fold: nothing is known of the spread over other splits of the "
            "data."
        )
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
            f"{join_names(facts.unfinished)} lack folds and are in no table yet; running the "
            "same command again finishes them."
        )
    for system in facts.systems:
        pair = facts.compare(system, facts.baseline)
        if pair is None:
            continue
        if not pair.shows_difference:
            yield (
                f"No difference between {system} and {_name_baseline(facts)} was shown "
                f"(adjusted p {format_p(pair.p_adjusted)})."
            )
        elif facts.gain(system, facts.baseline) < 0:
            yield f"{system} scores below {_name_baseline(facts)}, which reads no feature."
    perfect = [
        system
        for system in [*facts.systems, *facts.baselines]
        if facts.metric.direction == "maximize" and facts.score(system).value == 1
    ]
    if perfect:
        yield (
            f"{join_names(perfect)} made no mistake: check whether the features hold the "
            "label. The interval of a perfect score is a bound."
        )
    for system in facts.systems:
        logistic = logistic_name(system)
        if logistic in facts.predictions and facts.gain(logistic, system) > 0:
            pair = facts.compare(system, logistic)
            shown = pair is not None and pair.shows_difference
            yield (
                f"A logistic regression on the features of {system} scores higher "
                f"({format_number(facts.score(logistic).value)} against "
                f"{format_number(facts.score(system).value)}; "
                f"{'the difference was shown' if shown else 'no difference was shown'}): "
                "the trees are not what makes the number."
            )
    off = facts.miscalibrated
    if off:
        yield (
            f"The probabilities of {join_names(off)} are not calibrated: use their decisions, "
            "not their probabilities."
        )


def _search_caveats(facts: StudyFacts) -> Iterator[str]:
    searches = [search for found in facts.searches.values() for search in found]
    limited = sum(search.stopped_by == "time" for search in searches)
    if limited:
        yield (
            f"{format_share(limited, len(searches))} searches were time-limited: they depend "
            "on the machine and are not reproducible."
        )
    states = Counter(trial["state"] for search in searches for trial in search.trials)
    if states["fail"]:
        yield f"{count_words(states['fail'], 'trial')} failed in the booster and were left out."
    if searches and facts.options["trials"] < 5:
        yield (
            f"{count_words(facts.options['trials'], 'trial')} a search is hardly a search: "
            "these are nearly the default hyperparameters."
        )
    for (system, param, end), n in count_edges(facts).items():
        n_folds = len(facts.searches[system])
        # In half of the folds: a single choice at an end is chance.
        if 2 * n >= n_folds:
            lies, its = ("lie", "their") if param.endswith("rounds") else ("lies", "its")
            yield (
                f"{system}: {param} {lies} at the {end} end of {its} range in {n} of "
                f"{count_words(n_folds, 'fold')}; the best may lie beyond."
            )
    for system in facts.searches:
        records = facts.params[system].values()
        n = sum(bool(record["record"].get("fallbacks")) for record in records)
        if n:
            yield (
                f"{system}: in {count_words(n, 'fold')} a class had too few rows for SMOTE, "
                "and random oversampling took its place."
            )
