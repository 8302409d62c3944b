"""The pool of margins: its members, its weights, and rows that lack some of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from sklearn.model_selection import GroupKFold

from toolkit.fusion.inputs import (
    InnerPredictions,
    NewPredictions,
    StackedPredictions,
    one_blas_thread,
)
from toolkit.fusion.late import _pool_margins, learn_rule
from toolkit.fusion.learned import _pool_members
from toolkit.validation.folds import FINAL, Fold
from toolkit.validation.ledger import Ledger


@pytest.fixture(autouse=True)
def _calm():
    with one_blas_thread():
        yield


def stacked_of(members, present=None, priors=None):
    members = np.array(members, dtype=float)
    n_members, n, n_classes = members.shape
    return StackedPredictions(
        votes=members.argmax(axis=2),
        proba=members,
        present=np.ones((n_members, n), dtype=bool) if present is None else np.array(present),
        priors=np.tile(np.full(n_classes, 1 / n_classes) if priors is None else priors, (n, 1)),
    )


def learn(stacked, labels, groups=None):
    """The learnt weights, the out-of-fold probabilities, and the ledger's rows of the fit."""
    labels = np.array(labels)
    n, n_classes = stacked.priors.shape
    rows, utterances = np.arange(n), np.array([f"u{row:05d}" for row in range(n)])
    groups = np.array([f"S{row % 3}" for row in rows]) if groups is None else groups
    blank = np.full((n, n_classes), 1 / n_classes)
    inner = InnerPredictions(rows, labels, groups, stacked.seen, blank)
    ledger = Ledger("log-pool", Fold(FINAL, rows, rows[:0], ()), utterances, groups)
    rule, proba = learn_rule("log-pool", stacked, inner, lambda _: ledger)
    (n_fused,) = (e["n_rows"] for e in ledger.entries() if e["role"] == "fuse")
    return SimpleNamespace(
        rule=rule, weights=rule.keywords["weights"], proba=proba, n_fused=n_fused
    )


def pool_by_hand(weights, members):
    """The product of the members' probabilities, each to the power of its weight."""
    product = np.ones(np.shape(members)[1:])
    for weight, proba in zip(weights, members, strict=True):
        product = product * np.asarray(proba) ** weight
    return product / product.sum(axis=1, keepdims=True)


def penalised_loss(weights, members, labels):
    """The mean log-loss, and 30 / n times the squared distances from equal weights."""
    n = len(labels)
    of_truth = pool_by_hand(weights, members)[np.arange(n), labels]
    distances = sum((weight - 1 / len(weights)) ** 2 for weight in weights)
    return -np.log(of_truth).mean() + 30 / n * distances


def best_weights(members, labels):
    """The weights of the least loss, by a search that knows no gradient."""
    start = np.full(len(members), 1 / len(members))
    found = minimize(
        penalised_loss,
        start,
        (members, labels),
        method="Nelder-Mead",
        bounds=[(0, 9)] * len(members),
        options={"xatol": 1e-7, "fatol": 1e-12, "maxiter": 10_000},
    )
    return found.x


def make_members(labels, skills, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    margins = rng.normal(size=(len(skills), len(labels), n_classes))
    margins += np.array(skills)[:, None, None] * np.eye(n_classes)[labels]
    odds = np.exp(margins)
    return odds / odds.sum(axis=2, keepdims=True)


def test_members_are_all_trees_and_the_linear_part_of_early(study):
    by_system = {v.system: v.inner[2] for v in [*study.voters, study.early]}

    members = _pool_members(by_system)

    expected = {
        "audio (trees)": ("audio", "trees"),
        "early (linear)": ("early", "linear"),
        "early (trees)": ("early", "trees"),
        "text (trees)": ("text", "trees"),
        "visual (trees)": ("visual", "trees"),
    }
    assert list(members) == list(expected)
    for name, (system, part) in expected.items():
        np.testing.assert_array_equal(members[name].proba, by_system[system].parts[part])
        np.testing.assert_array_equal(members[name].present, by_system[system].present)


def test_models_without_linear_parts_are_members_as_they_are(study):
    by_system = {v.system: replace(v.inner[2], parts={}) for v in [*study.voters, study.early]}

    members = _pool_members(by_system)

    assert list(members) == [f"{name} (trees)" for name in sorted(by_system)]
    for name, inner in by_system.items():
        np.testing.assert_array_equal(members[f"{name} (trees)"].proba, inner.proba)


def test_probabilities_are_products_of_powers():
    members = [[[0.5, 0.25, 0.25]], [[0.1, 0.8, 0.1]]]

    pooled = _pool_margins(stacked_of(members), np.array([2.0, 0.5]))

    # .25 x sqrt(.1), .0625 x sqrt(.8), .0625 x sqrt(.1)
    odds = np.array([0.25 * 0.1**0.5, 0.0625 * 0.8**0.5, 0.0625 * 0.1**0.5])
    assert_allclose(pooled.proba, [odds / odds.sum()], rtol=1e-12)
    assert pooled.y_pred.tolist() == [0]


def test_an_absent_member_has_the_class_priors_whatever_it_holds():
    priors, weights = np.array([0.2, 0.3, 0.5]), np.array([1.5, 0.7])
    seen = [[0.6, 0.3, 0.1]]
    stacked = stacked_of([seen, [[0.98, 0.01, 0.01]]], [[True], [False]], priors)

    pooled = _pool_margins(stacked, weights)

    assert_allclose(pooled.proba, pool_by_hand(weights, [seen, [priors]]), rtol=1e-12)
    assert pooled.present.tolist() == [True]


def test_a_row_without_any_member_gets_the_priors_themselves():
    # Their own margins, weighted, would be sharper than the priors.
    priors = np.array([0.1, 0.3, 0.6])
    stacked = stacked_of([[[1, 0, 0]]] * 2, [[False], [False]], priors)

    pooled = _pool_margins(stacked, np.array([2.0, 2.0]))

    assert pooled.proba.tolist() == [priors.tolist()]
    assert (pooled.y_pred.tolist(), pooled.present.tolist()) == ([2], [False])


def test_a_class_that_training_lacks_stays_impossible():
    priors = np.array([0.4, 0.6, 0.0])
    members = [[[0.7, 0.3, 0.0], [0.2, 0.8, 0.0]], [[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]]]
    stacked = stacked_of(members, [[True, True], [True, False]], priors)

    pooled = _pool_margins(stacked, np.array([1.2, 0.4]))

    assert pooled.proba[:, 2].tolist() == [0, 0]
    assert_allclose(
        pooled.proba[1, :2],
        pool_by_hand([1.2, 0.4], [[[0.2, 0.8]], [[0.4, 0.6]]])[0],
        rtol=1e-12,
    )


@pytest.mark.parametrize("n", [12, 60, 600])
@pytest.mark.parametrize("skills", [(1.0, 0.3), (1.5, 0.5, -0.5), (0.5, 1.0, 1.5, 0.2)])
def test_the_weights_are_those_of_the_least_penalised_loss(n, skills):
    labels = np.random.default_rng(n).integers(0, 3, n)
    members = make_members(labels, skills, seed=n)

    learnt = learn(stacked_of(members), labels)

    assert_allclose(learnt.weights, best_weights(members, labels), atol=2e-3)
    assert learnt.n_fused == n


def test_no_grid_of_weights_has_a_lower_loss():
    labels = np.array([0, 0, 1, 1, 2, 2, 0, 1])
    members = make_members(labels, (1.2, 0.4), seed=4)

    weights = learn(stacked_of(members), labels).weights

    grid = [(a / 50, b / 50) for a in range(151) for b in range(151)]
    losses = [penalised_loss(pair, members, labels) for pair in grid]
    assert_allclose(weights, grid[int(np.argmin(losses))], atol=0.02)
    assert penalised_loss(weights, members, labels) <= min(losses)


def test_many_rows_outweigh_the_prior():
    # Two equal members say 3 : 1 and are right in 9 rows of 10: twice their margin is right,
    # and the prior moves the sum of the weights by less than .001 x 2 / (4 x .09 x log 3 ^ 2).
    n = 30_000
    labels = (np.arange(n) % 10 == 0).astype(int)
    members = np.tile([0.75, 0.25], (2, n, 1))

    weights = learn(stacked_of(members), labels).weights

    assert weights[0] == pytest.approx(weights[1], abs=1e-6)
    assert weights.sum() == pytest.approx(2, abs=0.012)


def test_a_calibrated_pool_of_equals_keeps_equal_weights():
    labels = (np.arange(40) % 4 == 0).astype(int)
    members = np.tile([0.75, 0.25], (4, 40, 1))

    assert_allclose(learn(stacked_of(members), labels).weights, 0.25, atol=1e-6)


def test_a_member_that_misleads_weighs_nothing_and_never_less():
    labels = np.random.default_rng(0).integers(0, 3, 900)
    members = make_members(labels, (1.5, -1.5))

    weights = learn(stacked_of(members), labels).weights

    assert weights[0] > 0.5
    assert weights[1] == 0


def test_absent_members_are_weighed_as_the_priors():
    rng = np.random.default_rng(5)
    labels = rng.choice(3, 90, p=[0.2, 0.3, 0.5])
    members = make_members(labels, (1.0, 0.8), seed=5)
    present = rng.random((2, 90)) > 0.4
    present[0] |= ~present[1]
    priors = np.array([0.2, 0.3, 0.5])

    learnt = learn(stacked_of(members, present, priors), labels)

    filled = np.where(present[:, :, None], members, priors)
    assert_allclose(learnt.weights, best_weights(filled, labels), atol=2e-3)


def test_rows_without_any_member_teach_nothing():
    labels = np.random.default_rng(6).integers(0, 3, 60)
    members = make_members(labels, (1.0, 0.4), seed=6)
    present = np.ones((2, 60), dtype=bool)
    present[:, :20] = False
    priors = [0.6, 0.3, 0.1]

    learnt = learn(stacked_of(members, present, priors), labels)

    kept = stacked_of(members[:, 20:], priors=priors)
    assert learnt.weights.tolist() == learn(kept, labels[20:]).weights.tolist()
    assert learnt.n_fused == 40
    assert learnt.proba[:20].tolist() == [priors] * 20


def test_without_any_row_the_weights_are_equal():
    nobody = stacked_of(np.full((4, 6, 2), 0.5), np.zeros((4, 6), dtype=bool))

    assert learn(nobody, [0, 1] * 3).weights.tolist() == [0.25] * 4


def test_rows_of_a_class_that_a_model_never_met_do_not_move_the_weights():
    labels = np.random.default_rng(7).integers(0, 3, 80)
    members = make_members(labels, (1.0, 0.4), seed=7)
    # The model behind the first row of the second member was trained without its class.
    members[1, 0] = np.where(np.arange(3) == labels[0], 0, 0.5)

    weights = learn(stacked_of(members), labels).weights

    assert_allclose(weights, best_weights(members[:, 1:], labels[1:]), atol=2e-3)


def test_fused_training_rows_come_from_weights_of_other_groups():
    labels = np.random.default_rng(8).integers(0, 3, 90)
    members = make_members(labels, (1.2, 0.6, 0.1), seed=8)
    groups = np.array([f"S{row // 10}" for row in range(90)])

    learnt = learn(stacked_of(members), labels, groups)

    expected = np.full((90, 3), np.nan)
    for train, test in GroupKFold(3).split(labels, groups=groups):
        weights = best_weights(members[:, train], labels[train])
        expected[test] = pool_by_hand(weights, members[:, test])
    assert_allclose(learnt.proba, expected, atol=2e-3)
    flattered = pool_by_hand(learnt.weights, members)
    assert np.abs(learnt.proba - flattered).max() > 0.01


def test_new_rows_are_pooled_as_training_rows_are():
    labels = np.random.default_rng(9).integers(0, 3, 60)
    members = make_members(labels, (1.0, 0.4), seed=9)
    learnt = learn(stacked_of(members), labels)

    new = make_members(labels[:5], (1.0, 0.4), seed=10)
    pooled = learnt.rule(
        StackedPredictions.of(
            [NewPredictions(p, p.argmax(axis=1), np.ones(5, dtype=bool)) for p in new],
            np.full(3, 1 / 3),
        )
    )

    assert_allclose(pooled.proba, pool_by_hand(learnt.weights, new), rtol=1e-12)
