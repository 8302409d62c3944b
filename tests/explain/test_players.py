"""Modalities as players inside the trees, against all subsets of them."""

import numpy as np
from numpy.testing import assert_allclose

from toolkit.explain import (
    explain_modalities,
    make_explainer,
)
from toolkit.explain.contributions import explain_rows
from toolkit.explain.shapley import interaction_index, shapley_values

OWNER = {0: 0, 1: 1, 2: 1, 3: 1, 4: 2}  # text, audio (three features), visual


def games(booster, X, by_hand):
    """What every set of modalities expects, by the definition: (rows, classes, sets)."""
    trees = by_hand.read_trees(booster)
    n = len(booster.classes)
    worth = np.zeros((len(X), n, 8))
    for s in range(8):
        known = {feature for feature, owner in OWNER.items() if s >> owner & 1}
        for row, x in enumerate(X):
            for c in range(n):
                worth[row, c, s] = sum(by_hand.expect(t, x, known) for t in trees[c::n])
    return worth


def test_values_and_interactions_are_those_of_the_game_over_modalities(booster, rows, by_hand):
    X = rows[0][:8]
    worth = games(booster, X, by_hand)

    game = explain_modalities(make_explainer(booster), X)

    assert game.modalities == ("text", "audio", "visual")
    expected = shapley_values(worth.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert_allclose(game.values[:, :3], expected, atol=1e-12)
    index = interaction_index(worth.transpose(2, 0, 1)).transpose(2, 3, 0, 1)
    assert_allclose(game.interactions[:, :3], index, atol=1e-12)
    assert not game.values[:, 3].any()


def test_values_add_up_to_the_margin(booster, rows):
    explainer = make_explainer(booster)

    game = explain_modalities(explainer, rows[0])

    margins = explain_rows(explainer, rows[0]).sum(axis=2)
    assert_allclose(game.values.sum(axis=2) + explainer.base, margins, atol=1e-12)


def test_one_feature_a_modality_gives_the_features_values(kind, train, rows):
    names = tuple(f"m{k}__value__0000" for k in range(5))
    explainer = make_explainer(train(kind, names=names))

    game = explain_modalities(explainer, rows[0])

    assert_allclose(game.values, explain_rows(explainer, rows[0])[:, :, :-1], atol=1e-12)


def test_a_feature_that_no_tree_uses_keeps_players_apart(train, rows):
    X = rows[0].copy()
    X[:, 1] = 0
    names = tuple(f"m{k}__value__0000" for k in range(5))
    explainer = make_explainer(train("lightgbm", X=X, names=names))

    game = explain_modalities(explainer, X)

    assert 1 not in explainer.columns
    assert not game.values[:, :, 1].any()
    assert_allclose(game.values, explain_rows(explainer, X)[:, :, :-1], atol=1e-12)
