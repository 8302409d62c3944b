"""The answer: made from the numbers, and no winner without a test."""

import dataclasses
import re

import pytest

from toolkit.report.answer import answer_section


def answer(facts):
    return answer_section(facts).parts[0].text


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


def test_of_losses_the_lowest_is_best(make_facts):
    facts = make_facts(metric="log_loss")
    best = min(
        (name for name in facts.systems if name != "best-single"),
        key=lambda name: facts.score(name).value,
    )

    text = answer(facts)

    assert f"{best} has the lowest loss of 4 systems, Log-loss" in text
    assert "points" not in text


def test_one_system_is_held_against_its_logistic_regression(make_facts):
    facts = make_facts(skills=(("text", 0.9),), fused=())

    assert "it beats a logistic regression on the same features" in answer(facts)


def test_a_better_logistic_regression_is_named_in_the_answer(facts):
    worse = dataclasses.replace(facts.score("text-logistic"), value=0.99)
    scores = [worse if s == facts.score("text-logistic") else s for s in facts.scores]

    text = answer(dataclasses.replace(facts, scores=scores))

    assert "the best logistic regression (text-logistic, 0.990)" in text
    assert re.search(r"logistic regression \(text-logistic, 0\.990\)", text)


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
