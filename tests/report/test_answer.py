"""The answer: made from the numbers, and no winner without a test."""

import dataclasses
import re

import pytest

from toolkit.report.answer import _answer_section


def answer(facts):
    return _answer_section(facts).parts[0].text


def test_a_winner_is_named_where_the_test_shows_a_difference(make_facts):
    facts = make_facts(skills=(("audio", 0.1), ("text", 0.3)), fused=(("early", 0.9),))
    pair = facts.compare("early", "best-single")

    text = answer(facts)

    gain = 100 * (facts.score("early").value - facts.score("best-single").value)
    assert pair.p_adjusted <= 0.05
    assert (
        f"it beats the best single modality, chosen on inner scores (text) by {gain:.1f}"
        in text
    )
    assert "10 speakers" in text


def test_no_winner_is_named_where_none_was_shown(make_facts):
    facts = make_facts(skills=(("audio", 0.1), ("text", 0.5)), fused=(("early", 0.5),))
    pair = facts.compare("early", "best-single")

    sentence = answer(facts).split(". ")[-1]

    assert pair.p_adjusted > 0.05
    assert "no difference from the best single modality" in sentence
    assert "beats" not in sentence
    assert "worse than" not in sentence


def test_a_system_that_loses_is_said_to_lose(make_facts):
    facts = make_facts(skills=(("text", 0.9), ("audio", 0.8)), fused=(("early", 0.1),))

    assert "it is worse than the best single modality" in answer(facts)


def test_too_few_speakers_decide_nothing(make_facts):
    facts = make_facts(skills=(("text", 0.9),), fused=(), n_speakers=4)

    text = answer(facts)

    assert "not decidable" in text
    assert "beats" not in text
    assert "too few speakers for an interval" in text


def test_of_losses_the_lowest_is_the_selected_one(make_facts):
    facts = make_facts(metric="log_loss")
    best = min([*facts.systems, *facts.baselines], key=lambda name: facts.score(name).value)

    text = answer(facts)

    assert best != "early"
    assert (
        f"The lowest loss of {len(facts.predictions)} systems, selected on these data, is that "
        f"of {best}, {facts.score(best).value:.3f}" in text
    )
    assert "points" not in text


def test_the_primary_system_leads_and_the_highest_is_marked_as_selected(facts):
    higher = dataclasses.replace(facts.score("text-logistic"), value=0.99)
    scores = [higher if s == facts.score("text-logistic") else s for s in facts.scores]

    text = answer(dataclasses.replace(facts, scores=scores))

    score = facts.score("early")
    assert text.startswith(
        "On people never seen (10 speakers, each held out in turn), early, the primary system, "
        f"reaches F1-micro {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]; "
    )
    assert (
        f"The highest score of {len(facts.predictions)} systems, selected on these data, is "
        "that of text-logistic, 0.990: a selected score is on average too good." in text
    )


def test_a_primary_system_with_the_highest_score_is_not_called_selected(make_facts):
    text = answer(make_facts(fused=(("early", 0.95),)))

    assert "It has the highest score of" in text
    assert "selected" not in text


def test_a_change_of_the_primary_system_is_stated(make_facts):
    changed = (
        "The primary system was text at the first run; it was changed to audio after results "
        "existed."
    )

    assert changed in answer(make_facts(primary=["text", "audio"]))
    assert "changed" not in answer(make_facts(primary=["text"]))


def test_a_primary_system_without_results_is_named_as_unfinished(make_facts):
    facts = make_facts(fused=(), primary=["early"])
    best = facts.best([*facts.systems, *facts.baselines])

    text = answer(facts)

    assert text.startswith("The primary system, early, is not finished yet. So far the highest")
    assert f"is that of {best}" in text
    assert "reaches" not in text


@pytest.mark.parametrize("skill", [0.2, 0.9])
def test_a_system_beats_the_better_baseline_or_no_difference_was_shown(make_facts, skill):
    facts = make_facts(skills=(("text", skill),), fused=())
    rate = max(facts.score(name).value for name in ("majority", "no-information"))
    shown = facts.compare("text", facts.baseline).shows_difference

    text = answer(facts)

    assert facts.score(facts.baseline).value == rate
    assert shown == (skill > 0.2)
    assert (f"it beats the no-information rate ({rate:.3f}) by" in text) == shown
    assert (
        f"no difference from the no-information rate ({rate:.3f}) was shown" in text
    ) != shown


def test_equal_scores_are_given_as_scores_and_not_as_equality(make_facts):
    facts = make_facts(skills=(("text", 0.5), ("audio", 0.1)), fused=(("early", 0.5),))
    pair = facts.compare("early", "best-single")
    same = [s for s in facts.scores if s.system != "early"]
    same += [
        dataclasses.replace(s, system="early")
        for s in facts.scores
        if s.system == "best-single"
    ]
    equal = dataclasses.replace(pair, difference=0.0, p=1.0, p_adjusted=1.0)
    others = [p for p in facts.comparisons if {p.a, p.b} != {"early", "best-single"}]

    text = answer(dataclasses.replace(facts, scores=same, comparisons=[*others, equal]))

    assert "no difference from the best single modality" in text
    assert f"both score {facts.score('best-single').value:.3f}" in text
    assert "equal" not in text


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"difference": 0.1, "p_adjusted": 0.01}, "+10.0 points [+8.0, +12.0]: an improvement"),
        ({"difference": -0.1, "p_adjusted": 0.01}, "-10.0 points [-12.0, -8.0]: a loss"),
        (
            {"difference": 0.1, "p_adjusted": 0.2},
            "+10.0 points [+8.0, +12.0]: no difference shown",
        ),
        (
            {"difference": 0.1, "p_adjusted": 0.2, "smallest_p": 0.1},
            "+10.0 points [+8.0, +12.0]: not decidable with so few speakers",
        ),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_answer_says_what_the_primary_system_adds_to_its_logistic_regression(
    make_facts, change, verdict, turned
):
    facts = make_facts(skills=(("text", 0.9),), fused=())
    pair = facts.compare("text", "text-logistic")
    sign = -1 if turned else 1
    size = sign * change["difference"]
    changed = dataclasses.replace(
        pair,
        a="text-logistic" if turned else "text",
        b="text" if turned else "text-logistic",
        low=size - 0.02,
        high=size + 0.02,
        **(change | {"difference": size}),
    )
    others = [p for p in facts.comparisons if {p.a, p.b} != {"text", "text-logistic"}]
    value = facts.score("text-logistic").value

    text = answer(dataclasses.replace(facts, comparisons=[*others, changed]))

    p_adjusted = f"{change['p_adjusted']:.4f}".removeprefix("0")
    assert (
        f"To text-logistic, a logistic regression on the same features with {value:.3f}, "
        f"it adds {verdict} (adjusted p = {p_adjusted})."
    ) in text


def test_a_lower_loss_than_the_logistic_regression_adds(make_facts):
    facts = make_facts(skills=(("text", 0.9),), fused=(), metric="log_loss")
    gain = facts.score("text-logistic").value - facts.score("text").value

    assert gain > 0
    assert f"it adds {gain:+.3f} [" in answer(facts)


def test_a_shared_highest_score_names_all_that_have_it(make_facts):
    facts = make_facts(skills=(("text", 0.9),), fused=())
    score, other = facts.score("text"), facts.score("text-logistic")
    same = dataclasses.replace(other, value=score.value)
    scores = [same if s == other else s for s in facts.scores]

    shared = answer(dataclasses.replace(facts, scores=scores))

    assert "It has the highest score of 4 systems." in answer(facts)
    assert "It has the highest score of 4 systems together with text-logistic." in shared


@pytest.mark.parametrize(
    ("record", "kind"),
    [({}, "(boosted trees)"), ({"linear": {}}, "(boosted trees and a linear part)")],
)
def test_the_answer_names_the_kind_of_model(make_facts, record, kind):
    facts = make_facts(skills=(("text", 0.9),), fused=())
    params = {
        fold: found | {"record": found["record"] | record}
        for fold, found in facts.params["text"].items()
    }

    changed = dataclasses.replace(facts, params=facts.params | {"text": params})

    assert f"text {kind}, the primary system," in answer(changed)


@pytest.mark.parametrize(
    ("outer", "held_out"),
    [
        ("speaker", "10 speakers, each held out in turn"),
        ("session", "10 speakers, held out in 10 sessions"),
        ("10", "10 speakers, held out in 10 groups"),
        ("split", "10 speakers, held out by the split of the data"),
    ],
)
def test_the_first_line_gives_the_held_out_groups(make_facts, outer, held_out):
    assert f"On people never seen ({held_out}), early" in answer(make_facts(outer=outer))


@pytest.mark.parametrize("metric", ["f1_micro", "uar", "mcc", "brier"])
def test_every_number_of_the_answer_is_a_number_of_the_study(make_facts, metric):
    facts = make_facts(metric=metric)
    known = {f"{abs(x):.3f}" for s in facts.scores for x in (s.value, s.low, s.high) if x}
    known |= {
        f"{abs(facts.gain(a, b)):.3f}" for a in facts.predictions for b in facts.predictions
    }

    numbers = re.findall(r"\d\.\d{3}\b", answer(facts))

    assert numbers
    assert set(numbers) <= known
