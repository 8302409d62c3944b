"""Contributions of trees with a linear part, against the definition of the Shapley value."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.explain import Explainer, Totals
from toolkit.explain.contributions import ExplanationError
from toolkit.explain.shapley import explain_modalities
from toolkit.explain.shares import compute_linear_shares
from toolkit.models.linear import LinearPath
from toolkit.study.attribution import _pool_totals
from toolkit.validation import Predictions

A, B = 0.7, 0.4
OWNER = [0, 1, 1, 1, 2]  # text, audio (three features), visual


@pytest.fixture(scope="session")
def blend(booster, rows):
    """Trees with the linear part of the same rows, class 3 of 4 never seen."""
    linear = LinearPath(*rows, n_classes=4).fit(3)
    return replace(booster, linear=linear, weights=(A, B))


def standardised(X, rows):
    """Columns standardised by the training rows, clipped at 3; missing ones at their mean."""
    train = rows[0].astype(np.float64)
    means, deviations = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
    z, of_train = (np.clip((each - means) / deviations, -3, 3) for each in (X, train))
    return np.where(np.isnan(z), np.nanmean(of_train, axis=0), z)


def game_value(blend, rows, row, known, by_hand):
    """The margin expected of a row whose known features alone are known: (classes,)."""
    trees = by_hand.read_trees(blend)
    of_trees = [sum(by_hand.expect(t, row, known) for t in trees[c::3]) for c in range(3)]
    z = standardised(row[None], rows)[0] - standardised(rows[0], rows).mean(axis=0)
    unknown = [k for k in range(5) if k not in known]
    z[unknown] = 0  # on average a column is at its mean
    return A * (blend.linear.base + blend.linear.coefficients @ z) + B * np.array(of_trees)


@pytest.mark.slow
def test_contributions_are_the_shapley_values_of_the_whole_margin(blend, rows, by_hand):
    X = rows[0][:6]

    found = Explainer.of(blend).explain(X)

    for row, contributions in zip(X, found, strict=True):
        expected = by_hand.shapley(
            lambda known, row=row: game_value(blend, rows, row, known, by_hand), 5
        )
        assert_allclose(contributions[:3, :5], expected.T, atol=1e-5)
    assert not found[:, 3].any()


def test_they_equal_the_boosters_own_and_give_its_probabilities(blend, rows):
    explainer = Explainer.of(blend)
    tolerance = 1e-10 if blend.kind == "lightgbm" else 1e-5

    found = explainer.explain(rows[0])

    assert_allclose(found, blend.contributions(rows[0]), rtol=0, atol=tolerance)
    odds = np.exp(found.sum(axis=2)[:, :3])
    proba = blend.predict_proba(rows[0])
    assert_allclose(odds / odds.sum(axis=1, keepdims=True), proba[:, :3], atol=tolerance)
    assert explainer.check(rows[0]) <= tolerance


def test_an_expected_margin_that_is_not_the_models_stops_the_run(blend, rows):
    explainer = Explainer.of(blend)
    wrong = replace(explainer, base=explainer.base + np.array([1e-3, 0, 0, 0]))

    with pytest.raises(ExplanationError, match="differ"):
        wrong.check(rows[0])


def test_totals_hold_both_parts_before_their_weights(blend, booster, rows):
    X = rows[0][:50]
    z = standardised(X, rows) - standardised(rows[0], rows).mean(axis=0)

    totals = Explainer.of(blend).total(X)
    of_trees = Explainer.of(booster).total(X)

    assert totals.parts == of_trees.parts
    assert_allclose(totals.trees, of_trees.signed, atol=1e-12)
    assert_allclose(totals.signed, A * totals.linear + B * totals.trees, atol=1e-12)
    assert_allclose(totals.weights, np.tile([A, B], (50, 1)))
    # The second part is the mean of audio, features 1 and 3.
    assert totals.parts[1] == ("audio", "mean")
    expected = z[:, [1, 3]] @ blend.linear.coefficients[:, [1, 3]].T
    assert_allclose(totals.linear[:, :3, 1], expected, atol=1e-5)


def test_trees_without_weight_keep_their_own_contributions(blend, booster, rows):
    totals = Explainer.of(replace(blend, weights=(1.0, 0.0))).total(rows[0][:20])

    assert_allclose(totals.trees, Explainer.of(booster).total(rows[0][:20]).signed)
    assert_allclose(totals.signed, totals.linear, atol=1e-12)


def test_models_with_linear_parts_are_joined_row_by_row(blend, rows):
    explainer = Explainer.of(blend)
    first, second = explainer.total(rows[0][:4]), explainer.total(rows[0][4:6])

    joined = Totals.join([first, second], [np.array([0, 1, 4, 5]), np.array([2, 6])], 8)

    assert_allclose(joined.linear[[0, 1, 4, 5]], first.linear)
    assert_allclose(joined.trees[[2, 6]], second.trees)
    assert not joined.weights[[3, 7]].any()


def test_modalities_inside_the_model_share_the_whole_margin(blend, rows, by_hand):
    X = rows[0][:5]

    game = explain_modalities(Explainer.of(blend), X)

    for row, values in zip(X, game.values, strict=True):

        def value(players, row=row):
            known = {k for k, owner in enumerate(OWNER) if owner in players}
            return game_value(blend, rows, row, known, by_hand)

        assert_allclose(values[:3], by_hand.shapley(value, 3).T, atol=1e-5)


def test_interactions_are_those_of_the_trees_alone(blend, booster, rows):
    game, of_trees = (
        explain_modalities(Explainer.of(m), rows[0][:5]) for m in (blend, booster)
    )

    assert_allclose(game.interactions, B * of_trees.interactions, atol=1e-12)


def make_predictions(n):
    return Predictions(
        system="early",
        classes=("calm", "tense"),
        utterances=np.array([f"u{k:02d}" for k in range(n)]),
        speakers=np.repeat([f"P{k}" for k in range(n // 2)], 2),
        sessions=None,
        folds=np.repeat(np.arange(n // 2), 2),
        present=np.ones(n, dtype=bool),
        labels=np.arange(n) % 2,
        proba=np.full((n, 2), 0.5),
    )


def make_totals(linear, trees, weights, parts):
    blank = np.zeros_like(linear)
    signed = weights[:, :1, None] * linear + weights[:, 1:, None] * trees
    trained = np.ones(linear.shape[:2], dtype=bool)
    return Totals(parts, signed, blank, blank[:, :, 0], trained, {}, {}, linear, trees, weights)


def test_the_linear_share_is_that_of_weighted_joint_magnitudes():
    rng = np.random.default_rng(0)
    parts = (("text", "mean"), ("text", "std"), ("audio", "mean"))
    linear, trees = rng.normal(size=(2, 12, 2, 3))
    weights = rng.random((12, 2))

    records = compute_linear_shares(
        make_predictions(12), make_totals(linear, trees, weights, parts)
    )

    def magnitude(sums, weight, rows=slice(None)):
        """By modality: the joint contribution less its mean over the classes."""
        joint = (
            np.stack([sums[..., :2].sum(axis=2), sums[..., 2]], axis=2) * weight[:, None, None]
        )
        centred = joint - joint.mean(axis=1, keepdims=True)
        return np.abs(centred[rows]).sum(axis=(0, 1))

    def share(rows):
        both = [magnitude(linear, weights[:, 0], rows), magnitude(trees, weights[:, 1], rows)]
        return np.array([both[0].sum(), *both[0]]) / np.array([sum(both).sum(), *sum(both)])

    found = {r.modality: r for r in records}
    assert list(found) == ["", "text", "audio"]
    assert_allclose([r.share for r in found.values()], share(np.arange(12)))
    for name, at in (("", 0), ("audio", 2)):
        assert found[name].low < found[name].share < found[name].high
        left_out = [share(np.delete(np.arange(12), [2 * k, 2 * k + 1]))[at] for k in range(6)]
        half = (found[name].high - found[name].low) / 2
        error = np.sqrt(5 / 6 * ((left_out - np.mean(left_out)) ** 2).sum())
        assert half == pytest.approx(2.5706 * error, rel=1e-3)  # t of 5 degrees of freedom


def test_models_without_a_linear_part_have_no_linear_share():
    one = np.ones((12, 2, 1))
    totals = make_totals(one, one, np.ones((12, 2)), (("text", "mean"),))

    assert (
        compute_linear_shares(
            make_predictions(12), replace(totals, linear=None, trees=None, weights=None)
        )
        == []
    )


def test_contributions_through_a_pool_are_weighted_sums_of_its_members():
    rng = np.random.default_rng(1)
    text, audio = (("text", "mean"),), (("audio", "mean"),)
    totals = {
        "text": make_totals(*rng.normal(size=(2, 4, 2, 1)), rng.random((4, 2)), text),
        "early": make_totals(
            *rng.normal(size=(2, 4, 2, 2)), rng.random((4, 2)), (*audio, *text)
        ),
    }
    members = ("early (linear)", "early (trees)", "text (trees)")
    weights = rng.random((4, 3))
    rows = [dict(zip(members, row, strict=True)) for row in weights]

    pooled = _pool_totals(totals, rows)

    early, w = totals["early"], weights.T[:, :, None]
    expected = {
        "audio": w[0] * early.linear[:, :, 0] + w[1] * early.trees[:, :, 0],
        "text": w[0] * early.linear[:, :, 1]
        + w[1] * early.trees[:, :, 1]
        + w[2] * totals["text"].trees[:, :, 0],
    }
    for k, (modality, _) in enumerate(pooled.parts):
        assert_allclose(pooled.signed[:, :, k], expected[modality])
