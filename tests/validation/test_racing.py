"""The race: who has lost is decided by paired scores, and no score that counts is changed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from toolkit.validation import METRICS
from toolkit.validation.racing import IntermediateValue, should_prune

ALL = 300


def guess(n, n_wrong):
    """Let the first rows be wrong, which are dealt to all ten blocks."""
    labels = np.arange(n) % 2
    return labels, np.eye(2)[np.where(np.arange(n) < n_wrong, 1 - labels, labels)]


def standing(n_wrong, n=100, metric="f1_micro"):
    return IntermediateValue.compute(metric, *guess(n, n_wrong))


def best_of(*n_wrong, metric="f1_micro"):
    return [
        standing(wrong, n, metric) for wrong, n in zip(n_wrong, (100, 200, ALL), strict=True)
    ]


@pytest.mark.parametrize("metric", ["f1_micro", "uar", "mcc", "log_loss"])
def test_a_checkpoint_scores_the_rows_with_and_without_each_block(metric, make_predictions):
    table = make_predictions(n=57)

    taken = IntermediateValue.compute(metric, table.labels, table.proba)

    blocks = np.arange(57) % 10
    expected = [
        METRICS[metric].compute(table.labels[blocks != k], table.proba[blocks != k])
        for k in range(10)
    ]
    assert taken.score == pytest.approx(METRICS[metric].compute(table.labels, table.proba))
    np.testing.assert_allclose(taken.without, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("n_wrong", "lost"),
    [(0, False), (10, False), (11, False), (60, True)],
    ids=["ahead", "level", "a row behind", "far behind"],
)
def test_who_is_far_behind_has_lost(n_wrong, lost):
    assert should_prune([standing(n_wrong)], best_of(10, 20, 30), metric="f1_micro") == lost


def test_a_loss_is_better_the_smaller_it_is():
    best = best_of(10, 20, 30, metric="log_loss")

    assert should_prune([standing(60, metric="log_loss")], best, metric="log_loss")
    assert not should_prune([standing(0, metric="log_loss")], best, metric="log_loss")


def test_nobody_has_lost_after_the_last_fold():
    trial = [standing(60), standing(120, 200), standing(180, ALL)]

    assert not should_prune(trial, best_of(10, 20, 30), metric="f1_micro")


def test_what_is_left_to_come_can_turn_the_race_early_and_not_late():
    behind = IntermediateValue(100, 0.5, tuple(0.5 + 0.02 * np.linspace(-1, 1, 10)))
    level = IntermediateValue(100, 0.55, (0.55,) * 10)
    spread = np.sqrt(9 * np.var(behind.without))

    for n_rows in (110, 200, 1000):
        chance = norm.cdf(-0.05 / (spread * np.sqrt((n_rows - 100) / n_rows)))
        last = replace(level, n_rows=n_rows)
        assert should_prune([behind], [level, last], metric="f1_micro") == (chance < 0.1)


def test_other_rows_are_not_compared():
    with pytest.raises(ValueError, match="100 and 200 rows cannot be compared"):
        should_prune([standing(1)], best_of(1, 2, 3)[1:], metric="f1_micro")
