"""Small boosters with missing values and features that occur twice on a path."""

import json
from itertools import combinations
from math import factorial
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.models.boosters import fit_booster, make_training_data

NAMES = (
    "text__value__0000",
    "audio__mean__0000",
    "audio__std__0000",
    "audio__mean__0001",
    "visual__slope__0000",
)
PARAMS = {
    "lightgbm": {"num_leaves": 12, "min_data_in_leaf": 3, "bagging_fraction": 0.7},
    "xgboost": {"max_depth": 5, "min_child_weight": 0.2, "colsample_bytree": 0.8},
}


@pytest.fixture(scope="session")
def rows():
    """300 rows of five features, some missing, and labels of three classes that they tell."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(300, 5)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] * X[:, 2] > 0.3).astype(int) + (X[:, 3] > 0.5)
    X[rng.random(X.shape) < 0.15] = np.nan
    X[5] = np.nan
    return X, y


@pytest.fixture(scope="session", params=["lightgbm", "xgboost"])
def kind(request):
    """Each booster in turn."""
    return request.param


@pytest.fixture(scope="session")
def train(rows):
    """Train a booster on the rows; class 3 of 4 never occurs."""

    def fit(kind, *, X=None, n_rounds=6, params=None, n_classes=4, names=NAMES):
        data = make_training_data(
            kind,
            rows[0] if X is None else X,
            rows[1],
            n_classes=n_classes,
            names=names,
            max_bin=31,
        )
        return fit_booster(data, params or PARAMS[kind], n_rounds=n_rounds, seed=1)

    return fit


@pytest.fixture(scope="session")
def booster(kind, train):
    """A booster whose paths meet features twice."""
    return train(kind)


def read_trees(booster):
    """Trees as nested dicts: feature, goes (value -> 0 or 1), share of each child, leaf."""
    if booster.kind == "lightgbm":
        dump = booster.model.dump_model()["tree_info"]
        return [_lightgbm(tree["tree_structure"]) for tree in dump]
    trees = json.loads(bytes(booster.model.save_raw("json")))["learner"]["gradient_booster"]
    return [_xgboost(tree, 0) for tree in trees["model"]["trees"]]


def _lightgbm(node):
    if "leaf_value" in node:
        return {"leaf": node["leaf_value"], "cover": node.get("leaf_count", 1)}
    children = [_lightgbm(node["left_child"]), _lightgbm(node["right_child"])]
    threshold, default = node["threshold"], 0 if node["default_left"] else 1
    as_zero = node["missing_type"] == "None"

    def goes(value):
        if np.isnan(value):
            return int(not threshold >= 0) if as_zero else default
        return int(not float(value) <= threshold)

    return {
        "feature": node["split_feature"],
        "goes": goes,
        "children": children,
        "cover": node["internal_count"],
    }


def _xgboost(tree, k):
    cover = float(np.float32(tree["sum_hessian"][k]))
    if tree["left_children"][k] < 0:
        return {"leaf": float(np.float32(tree["split_conditions"][k])), "cover": cover}
    threshold, default = np.float32(tree["split_conditions"][k]), 1 - tree["default_left"][k]

    def goes(value):
        return default if np.isnan(value) else int(not np.float32(value) < threshold)

    return {
        "feature": tree["split_indices"][k],
        "goes": goes,
        "children": [
            _xgboost(tree, tree["left_children"][k]),
            _xgboost(tree, tree["right_children"][k]),
        ],
        "cover": cover,
    }


def expect(node, row, known):
    """What a tree expects of a row of which some features are known."""
    if "leaf" in node:
        return node["leaf"]
    if node["feature"] in known:
        return expect(node["children"][node["goes"](row[node["feature"]])], row, known)
    return sum(
        child["cover"] / node["cover"] * expect(child, row, known) for child in node["children"]
    )


def shapley(value, n):
    """Shapley values of a game of n players by the sum over all subsets."""
    phi = np.zeros((n, *np.shape(value(frozenset()))))
    for player in range(n):
        others = [k for k in range(n) if k != player]
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for some in combinations(others, size):
                gain = value(frozenset(some) | {player}) - value(frozenset(some))
                phi[player] += weight * gain
    return phi


@pytest.fixture(scope="session")
def by_hand():
    """Trees and Shapley values by their plain definitions, from the libraries' own dumps."""
    return SimpleNamespace(read_trees=read_trees, expect=expect, shapley=shapley)
