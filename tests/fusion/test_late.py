from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.fusion import majority_vote, soft_vote
from toolkit.fusion.inputs import StackedPredictions
from toolkit.fusion.late import _average, _most_probable

EQUAL = {0: np.full(4, 0.25)}

# What the first voter (of confidence .4) and the second (.5) say, and below it what the vote
# decides when the third, the surest (.7), says a, b, c or d.
TRUTH = """
      aa ab ac ad  ba bb bc bd  ca cb cc cd  da db dc dd
  a   a  a  a  a   a  b  a  a   a  a  c  a   a  a  a  d
  b   a  b  b  b   b  b  b  b   b  b  c  b   b  b  b  d
  c   a  c  c  c   c  b  c  c   c  c  c  c   c  c  c  d
  d   a  d  d  d   d  b  d  d   d  d  c  d   d  d  d  d
"""


def choices(say, system, votes, sure):
    proba = np.full((len(votes), 4), (1 - sure) / 3)
    proba[np.arange(len(votes)), votes] = sure
    return say(system, proba)


def read_truth():
    pairs, *rows = (line.split() for line in TRUTH.strip().splitlines())
    for third, *decisions in rows:
        for pair, decision in zip(pairs, decisions, strict=True):
            yield pair + third, decision


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_vote_follows_the_table_of_all_64_cases(say, order):
    cases, expected = zip(*read_truth(), strict=True)
    votes = np.array([["abcd".index(vote) for vote in case] for case in cases])
    voters = [
        choices(say, f"voter{place}", votes[:, place], sure)
        for place, sure in enumerate((0.4, 0.5, 0.7))
    ]

    fused = majority_vote([voters[place] for place in order], EQUAL)

    assert len(set(cases)) == 64
    assert "".join("abcd"[code] for code in fused.y_pred) == "".join(expected)
    assert int(StackedPredictions.of(voters, EQUAL[0]).tied.sum()) == 24


def test_the_table_is_plurality_with_ties_by_summed_probability():
    for case, decision in read_truth():
        summed = {
            letter: sum(
                sure if letter == vote else (1 - sure) / 3
                for vote, sure in zip(case, (0.4, 0.5, 0.7), strict=True)
            )
            for letter in "abcd"
        }
        assert decision == max("abcd", key=lambda one: (case.count(one), summed[one])), case


def test_a_vote_outweighs_any_probability(say):
    voters = [
        say("one", [[0.4, 0.3, 0.3, 0]]),
        say("two", [[0.4, 0.3, 0.3, 0]]),
        say("three", [[0, 1, 0, 0]]),
    ]

    fused = majority_vote(voters, EQUAL)

    # Two votes for a, one for b; mean probabilities .8/3, 1.6/3, .2 and 0.
    assert fused.y_pred.tolist() == [0]
    expected = np.array([[2 + 0.8 / 3, 1 + 1.6 / 3, 0.2, 0]]) / 4
    assert_allclose(fused.proba, expected, atol=1e-15)
    assert fused.system == "vote"


@pytest.mark.parametrize("fuse", [majority_vote, soft_vote])
@pytest.mark.parametrize(
    ("priors", "winner"), [([0.1, 0.3, 0.4, 0.2], 2), ([0.2, 0.3, 0.3, 0.2], 1)]
)
def test_an_exact_tie_goes_to_the_larger_share_then_to_the_lower_code(
    say, fuse, priors, winner
):
    # Each of three classes has a vote; of two, rounding makes .1 + .3 + .7 more than
    # .7 + .1 + .3.
    rows = ([0, 0.1, 0.7, 0.2], [0, 0.3, 0.1, 0.6], [0, 0.7, 0.3, 0])
    voters = [say(f"voter{place}", [row]) for place, row in enumerate(rows)]

    fused = fuse(voters, {0: np.array(priors)})

    assert fused.y_pred.tolist() == [winner]


def test_a_vote_counts_decisions_and_not_probabilities(say):
    shifted = replace(say("one", [[0.6, 0.4, 0, 0]]), y_pred=np.array([1]))
    voters = [shifted, say("two", [[0.4, 0.6, 0, 0]]), say("three", [[1, 0, 0, 0]])]

    assert majority_vote(voters, EQUAL).y_pred.tolist() == [1]


@pytest.mark.parametrize("fuse", [majority_vote, soft_vote])
def test_an_absent_voter_has_no_say(say, fuse):
    loud = say("loud", [[1, 0, 0, 0]] * 2, present=[False, True])
    others = [say("one", [[0, 0.6, 0.4, 0]] * 2), say("two", [[0, 0.6, 0.3, 0.1]] * 2)]

    fused = fuse([loud, *others], EQUAL)
    without = fuse(others, EQUAL)

    assert fused.proba[0].tolist() == without.proba[0].tolist()
    assert fused.proba[1, 0] > 0
    assert fused.present.all()


@pytest.mark.parametrize("fuse", [majority_vote, soft_vote])
def test_a_row_that_nobody_sees_gets_its_folds_training_priors(say, fuse):
    silent = {"present": [True, False, False], "folds": [0, 0, 1]}
    voters = [say(name, [[1, 0, 0, 0]] * 3, **silent) for name in ("one", "two")]
    priors = {0: np.array([0.1, 0.2, 0.4, 0.3]), 1: np.array([0.1, 0.4, 0.1, 0.4])}

    fused = fuse(voters, priors)

    assert fused.proba[1].tolist() == [0.1, 0.2, 0.4, 0.3]
    assert fused.proba[2].tolist() == [0.1, 0.4, 0.1, 0.4]
    assert fused.y_pred.tolist() == [0, 2, 1]
    assert fused.present.tolist() == [True, False, False]


def test_soft_is_the_mean_over_the_voters_present(say):
    voters = [
        say("one", [[0.8, 0.2], [0.8, 0.2]]),
        say("two", [[0.1, 0.9], [0.1, 0.9]], present=[True, False]),
        say("three", [[0.3, 0.7], [0.2, 0.8]]),
    ]

    fused = soft_vote(voters, {0: np.array([0.5, 0.5])})

    assert_allclose(fused.proba, [[0.4, 0.6], [0.5, 0.5]], atol=1e-15)
    assert fused.system == "soft"
    assert soft_vote(voters, {0: np.array([0.5, 0.5])}, system="all").system == "all"


@pytest.mark.parametrize("fuse", [majority_vote, soft_vote])
def test_the_order_of_voters_changes_no_bit(study, fuse):
    tables = [voter.predictions for voter in study.voters]
    priors = study.priors()

    results = [fuse(order, priors) for order in permutations(tables)]

    assert len({result.proba.tobytes() for result in results}) == 1
    assert len({result.y_pred.tobytes() for result in results}) == 1


@pytest.mark.parametrize("fuse", [majority_vote, soft_vote])
def test_renaming_classes_renames_the_decisions(study, fuse):
    order = np.array([2, 0, 3, 1])
    tables = [voter.predictions for voter in study.voters]
    priors = study.priors()
    renamed = [
        replace(
            table,
            labels=np.argsort(order)[table.labels],
            proba=table.proba[:, order],
            y_pred=np.argsort(order)[table.y_pred],
        )
        for table in tables
    ]

    fused = fuse(renamed, {fold: share[order] for fold, share in priors.items()})

    seen = fused.present
    assert order[fused.y_pred][seen].tolist() == fuse(tables, priors).y_pred[seen].tolist()


def test_a_fold_without_training_priors_is_named(study):
    priors = study.priors()
    del priors[3]

    with pytest.raises(ValueError, match=r"no training shares of folds \[3\]"):
        soft_vote([voter.predictions for voter in study.voters], priors)


def test_voters_that_cannot_be_fused_are_refused(say, study):
    with pytest.raises(ValueError, match="Got 1 voters"):
        soft_vote([study.voters[0].predictions], {})
    with pytest.raises(ValueError, match="are not aligned"):
        majority_vote([say("one", [[1.0, 0]]), say("two", [[1.0, 0]] * 2)], {})
    with pytest.raises(ValueError, match=r"Several voters are called \['text'\]"):
        soft_vote([study.voters[1].predictions] * 2, {})
    with pytest.raises(ValueError, match="Got 10 voters"):
        soft_vote([say(f"voter{k}", [[1.0, 0]]) for k in range(10)], {})


def test_four_voters_can_tie_two_against_two(say):
    votes = list(product(range(4), repeat=4))
    sure = (0.4, 0.5, 0.6, 0.7)
    voters = [
        choices(say, f"voter{place}", [case[place] for case in votes], sure[place])
        for place in range(4)
    ]

    fused = majority_vote(voters, EQUAL)

    for case, decision in zip(votes, fused.y_pred.tolist(), strict=True):
        summed = [
            sum(p if vote == code else (1 - p) / 3 for vote, p in zip(case, sure, strict=True))
            for code in range(4)
        ]
        counts = [case.count(code) for code in range(4)]
        best = max(zip(counts, np.round(summed, 9).tolist(), strict=True))
        assert (counts[decision], round(summed[decision], 9)) == best


def test_where_nobody_votes_there_is_no_tie(say):
    silent = [say(name, [[1.0, 0]] * 2, present=[True, False]) for name in ("one", "two")]

    assert StackedPredictions.of(silent, np.zeros(2)).tied.tolist() == [False, False]


def test_voters_of_no_weight_speak_where_they_are_alone(say):
    voters = [
        say("one", [[0.9, 0.1]] * 2, present=[True, False]),
        say("two", [[0.2, 0.8]] * 2),
        say("three", [[0.4, 0.6]] * 2),
    ]
    stacked = StackedPredictions.of(voters, np.array([0.5, 0.5]))

    fused = _average(stacked, np.array([1.0, 0.0, 0.0]))

    assert_allclose(fused.proba, [[0.9, 0.1], [0.3, 0.7]], atol=1e-15)


def test_the_most_probable_class_wins_whatever_its_share():
    proba = np.array([[0.2, 0.5, 0.3], [0.34, 0.33, 0.33]])

    assert _most_probable(proba, np.array([[0.8, 0.1, 0.1]] * 2)).tolist() == [1, 0]


def test_equally_probable_classes_go_to_the_larger_prior():
    proba, priors = np.array([[0.4, 0.2, 0.4]]), np.array([[0.3, 0.3, 0.4]])

    assert _most_probable(proba, priors).tolist() == [2]
