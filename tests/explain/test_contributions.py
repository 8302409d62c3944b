"""Contributions by the fast path against the definition and the boosters' own."""

import lightgbm as lgb
import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.explain import (
    check_explainer,
    contribution_blocks,
    make_explainer,
)
from toolkit.explain.contributions import ExplanationError, explain_rows
from toolkit.explain.trees import parse_forest
from toolkit.explain.treeshap import LANES
from toolkit.models import FittedBooster


def test_contributions_are_the_shapley_values_of_the_trees(booster, rows, by_hand):
    X = rows[0][:6]
    trees = by_hand.read_trees(booster)
    n_trained = len(booster.classes)

    shares = explain_rows(make_explainer(booster), X)

    for row, found in zip(X, shares, strict=True):
        for c in range(n_trained):

            def value(known, row=row, c=c):
                return sum(by_hand.expect(tree, row, known) for tree in trees[c::n_trained])

            assert_allclose(found[c, :5], by_hand.shapley(value, 5), atol=1e-12)


def test_contributions_equal_the_boosters_own_and_add_up(booster, rows):
    X = rows[0]
    shares = explain_rows(make_explainer(booster), X)
    own = booster.contributions(X)

    tolerance = 1e-10 if booster.kind == "lightgbm" else 1e-5
    assert_allclose(shares, own, rtol=0, atol=tolerance)
    odds = np.exp(shares.sum(axis=2)[:, :3])
    proba = odds / odds.sum(axis=1, keepdims=True)
    assert_allclose(proba, booster.predict_proba(X)[:, :3], rtol=0, atol=tolerance)


def test_features_meet_twice_on_a_path_in_the_trees_compared(booster, by_hand):
    def longest(node, seen=()):
        if "leaf" in node:
            return len(seen) - len(set(seen))
        return max(longest(child, (*seen, node["feature"])) for child in node["children"])

    assert max(longest(tree) for tree in by_hand.read_trees(booster)) >= 2


def test_a_class_without_training_rows_has_no_margin(booster, rows):
    shares = explain_rows(make_explainer(booster), rows[0])

    assert booster.classes == (0, 1, 2)
    assert not shares[:, 3].any()


@pytest.mark.parametrize("n_rows", [1, LANES, LANES + 1, 300])
def test_blocks_give_every_row_as_it_is_alone(booster, rows, n_rows):
    X = rows[0][:n_rows]
    explainer = make_explainer(booster)

    blocks = [(block.rows, block.shares.copy()) for block in contribution_blocks(explainer, X)]

    assert sum(part.stop - part.start for part, _ in blocks) == n_rows
    last, shares = blocks[-1]
    alone = explain_rows(explainer, X[-1:])[0]
    assert_allclose(shares[:, :, last.stop - last.start - 1], alone[:3, explainer.columns])
    assert not shares[:, :, last.stop - last.start :].any()


def test_a_single_leaf_and_a_single_split_are_explained(kind, train):
    stumps = {"lightgbm": {"num_leaves": 2}, "xgboost": {"max_depth": 1}}
    booster = train(kind, params=stumps[kind], n_rounds=3)

    assert check_explainer(make_explainer(booster), np.zeros((4, 5))) <= 1e-6


def test_missing_values_follow_zero_where_none_were_seen_in_training(kind, train, rows):
    X = np.nan_to_num(rows[0])
    booster = train(kind, X=X)
    asked = X[:20].copy()
    asked[::2, :3] = np.nan

    shares = explain_rows(make_explainer(booster), asked)

    assert_allclose(shares, booster.contributions(asked), rtol=0, atol=1e-6)


def test_values_at_a_threshold_go_where_the_booster_sends_them(kind, train):
    """Thresholds lie between float32 neighbours; both boosters meet them exactly."""
    booster = train(kind, n_rounds=12)
    forest = parse_forest(booster)
    X = np.zeros((40, 5), dtype=np.float32)
    inner = np.flatnonzero(forest.feature >= 0)[:40]
    for row, node in enumerate(inner):
        X[row, forest.feature[node]] = forest.threshold[node]
    above = np.nextafter(X, np.float32(np.inf))

    for asked in (X, above):
        shares = explain_rows(make_explainer(booster), asked)
        assert_allclose(shares, booster.contributions(asked), rtol=0, atol=1e-5)


def test_contributions_that_are_not_the_boosters_stop_the_run(booster, train, rows, kind):
    other = train(kind, n_rounds=5)
    wrong = make_explainer(other)
    object.__setattr__(wrong, "booster", booster)

    with pytest.raises(ExplanationError, match=r"differ by .* from the booster's own"):
        check_explainer(wrong, rows[0])


@pytest.mark.parametrize(
    ("settings", "categories", "why"),
    [
        ({"min_data_per_group": 5}, [4], "categorical splits"),
        ({"zero_as_missing": True}, [], "zeros for missing values"),
    ],
)
def test_what_only_lightgbm_explains_is_left_to_it(rows, settings, categories, why):
    made, X = train_otherwise(rows, settings, categories)

    explainer = make_explainer(made)

    assert why in explainer.reason
    if (
        why != "linear leaves"
    ):  # of which LightGBM itself gives contributions that do not add up
        assert check_explainer(explainer, X) == 0
    assert_allclose(explain_rows(explainer, X), made.contributions(X), atol=1e-12)


def test_linear_leaves_are_refused_since_nobody_explains_them(rows):
    made, _ = train_otherwise(rows, {"linear_tree": True}, [])

    with pytest.raises(ValueError, match=r"linear leaves, .* train without linear_tree"):
        make_explainer(made)


def train_otherwise(rows, settings, categories):
    """Train LightGBM by settings that the toolkit itself never uses."""
    X, y = np.nan_to_num(rows[0]), rows[1]
    X[:, 4] = np.round(np.abs(X[:, 4]) * 3)
    names = tuple(f"text__value__000{k}" for k in range(5))
    params = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}
    params |= settings
    data = lgb.Dataset(
        X, y, feature_name=list(names), categorical_feature=categories, params=params
    )
    model = lgb.train(params, data, num_boost_round=3)
    return FittedBooster("lightgbm", names, 3, (0, 1, 2), 3, np.empty(0), model), X
