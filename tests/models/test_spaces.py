"""The built-in spaces, and a user's own ranges and grids, which replace them name by name."""

import json
import pickle

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from toolkit.models import GRIDS, SPACES
from toolkit.models.libraries import PARAMETERS
from toolkit.models.spaces import (
    _default_params,
    first_params,
    grid_size,
    make_grid,
    make_space,
    suggest_values,
    to_params,
)

FRACTION = {"lightgbm": "feature_fraction", "xgboost": "colsample_bytree"}
SIZE = {"n_rows": 400, "n_features": 100}


def draw(kind, n_trials, **sizes):
    """Suggest parameters ``n_trials`` times at random, the defaults first."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(_default_params(kind))
    drawn = []
    for _ in range(n_trials):
        trial = study.ask()
        values = suggest_values(trial, SPACES[kind])
        drawn.append((trial, to_params(kind, values, **sizes)))
    return drawn


def distributions(kind, space):
    """What a trial is asked for, and the parameters that it gives."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    params = to_params(kind, suggest_values(trial, space), **SIZE)
    return trial.distributions, params


@pytest.mark.parametrize("kind", SPACES)
def test_suggestions_are_parameters_that_the_booster_knows(kind):
    _, params = draw(kind, 1, n_rows=500, n_features=768)[0]

    assert set(params) - {"max_bin"} <= PARAMETERS[kind].keys()
    assert json.loads(json.dumps(params)) == params


@pytest.mark.parametrize("kind", SPACES)
def test_the_default_lies_inside_the_space_and_names_all_of_it(kind):
    trial, _ = draw(kind, 1, n_rows=500, n_features=768)[0]

    assert trial.params == _default_params(kind)
    for name, distribution in trial.distributions.items():
        value = distribution.to_internal_repr(_default_params(kind)[name])
        assert distribution._contains(value), name


@pytest.mark.parametrize("kind", SPACES)
def test_the_same_distributions_serve_every_shape(kind):
    narrow, _ = draw(kind, 1, n_rows=100, n_features=50)[0]
    wide, _ = draw(kind, 1, n_rows=5000, n_features=40_000)[0]

    assert narrow.distributions == wide.distributions


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("n_features", [1, 5, 54, 88, 768, 40_000])
def test_a_tree_sees_eight_columns_or_all_and_few_of_many(kind, n_features):
    fractions = [
        params[FRACTION[kind]]
        for _, params in draw(kind, 30, n_rows=500, n_features=n_features)
    ]

    n_seen = np.array(fractions) * n_features
    assert (n_seen >= min(8, n_features) - 1e-9).all()
    assert (n_seen <= max(8, 3 * n_features**0.5) + 1e-9).all()
    assert max(fractions) <= 1


def test_leaves_hold_a_multiple_of_the_root_of_the_rows():
    few, many = (
        to_params("lightgbm", _default_params("lightgbm"), n_rows=n, n_features=10)
        for n in (100, 10_000)
    )

    assert few["min_data_in_leaf"] == 5
    assert many["min_data_in_leaf"] == 50


def test_no_leaf_is_asked_to_hold_nothing():
    drawn = draw("lightgbm", 30, n_rows=4, n_features=10)

    assert min(params["min_data_in_leaf"] for _, params in drawn) == 1


def test_an_unknown_booster_has_no_default():
    with pytest.raises(ValueError, match=r"Unknown booster 'catboost'"):
        _default_params("catboost")


@pytest.mark.parametrize("kind", SPACES)
def test_an_empty_table_is_the_built_in_space(kind):
    assert list(make_space(kind, {}).items()) == list(SPACES[kind].items())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([5, 50], FloatDistribution(5.0, 50.0, log=True)),
        ({"low": 5, "high": 50, "log": False}, FloatDistribution(5.0, 50.0)),
        ([1, 2, 4], CategoricalDistribution((1.0, 2.0, 4.0))),
        ({"choices": [5, 50]}, CategoricalDistribution((5.0, 50.0))),
    ],
)
def test_a_range_has_four_forms_and_the_scale_of_the_built_in_one(value, expected):
    found, _ = distributions("lightgbm", make_space("lightgbm", {"lambda_l2": value}))

    assert found["lambda_l2"] == expected
    others = distributions("lightgbm", SPACES["lightgbm"])[0]
    assert {k: v for k, v in found.items() if k != "lambda_l2"} == {
        k: v for k, v in others.items() if k != "lambda_l2"
    }


def test_whole_numbers_stay_whole():
    space = make_space("xgboost", {"max_depth": [2, 6], "gamma": 1})

    found, params = distributions("xgboost", space)

    assert found["max_depth"] == IntDistribution(2, 6)
    assert (type(params["max_depth"]), params["gamma"]) == (int, 1.0)


@pytest.mark.parametrize("kind", SPACES)
def test_a_single_value_is_fixed_and_no_choice(kind):
    step = {"lightgbm": "learning_rate", "xgboost": "eta"}[kind]

    found, params = distributions(kind, make_space(kind, {step: 0.3}))

    assert step not in found
    assert params[step] == 0.3


@pytest.mark.parametrize(
    ("kind", "own", "root"),
    [
        ("lightgbm", "feature_fraction", "columns_over_root"),
        ("lightgbm", "min_data_in_leaf", "leaf_rows_over_root"),
        ("xgboost", "colsample_bytree", "columns_over_root"),
        ("xgboost", "min_child_weight", "leaf_rows_over_root"),
    ],
)
def test_the_booster_s_own_share_takes_the_place_of_the_multiple(kind, own, root):
    found, params = distributions(kind, make_space(kind, {own: {"choices": [1, 2, 3]}}))

    assert root not in found
    assert params[own] in {1, 2, 3}
    with pytest.raises(ValueError, match=f"{own} and {root} say the same"):
        make_space(kind, {own: 1, root: 1})


@pytest.mark.parametrize("kind", SPACES)
def test_every_parameter_of_the_booster_may_be_named(kind):
    for name in PARAMETERS[kind]:
        _, params = distributions(kind, make_space(kind, {name: 1}))
        assert params[name] == 1


def test_a_bagging_frequency_that_was_said_stays():
    _, params = distributions("lightgbm", make_space("lightgbm", {"bagging_freq": 5}))

    assert params["bagging_freq"] == 5


@pytest.mark.parametrize("make", [make_space, make_grid])
def test_an_unknown_name_is_refused_with_the_nearest(make):
    with pytest.raises(ValueError, match=r"unknown parameter 'num_leafs'; did you mean 'num_l"):
        make("lightgbm", {"num_leafs": 3})
    with pytest.raises(ValueError, match=r"\.xgboost\]: unknown parameter 'num_leaves'"):
        make("xgboost", {"num_leaves": 3})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([9, 3], "expected low < high"),
        ([0, 3], "above 0"),
        ({"low": 3}, r"write name = \[low, high\]"),
        ({"low": 3, "high": 9, "lag": True}, r"write name = \[low, high\]"),
        ({"low": 3, "high": 9, "log": "yes"}, "log true or false"),
        ({"choices": []}, "name every choice, once"),
        ([3, 3, 4], "name every choice, once"),
        ([3.5, 4], "expected whole numbers"),
        (None, r"write name = \[low, high\]"),
    ],
)
def test_what_is_no_range_is_refused_with_its_place(value, message):
    with pytest.raises(ValueError, match=rf"\[space\.lightgbm\] num_leaves = .*{message}"):
        make_space("lightgbm", {"num_leaves": value})


@pytest.mark.parametrize("value", [[], [[3]], {"low": 3, "high": 4}, [3, 3]])
def test_what_is_no_list_of_values_is_no_grid(value):
    with pytest.raises(ValueError, match=r"\[grid\.lightgbm\] num_leaves"):
        make_grid("lightgbm", {"num_leaves": value})


@pytest.mark.parametrize("kind", SPACES)
def test_what_a_grid_does_not_name_is_at_the_default(kind):
    grid = make_grid(kind, {"max_bin": [15, 255]})

    point = suggest_values(FixedTrial({"max_bin": 255}), grid)

    assert point == _default_params(kind) | {"max_bin": 255}


@pytest.mark.parametrize("kind", SPACES)
def test_the_default_grid_has_the_strong_default_among_its_points(kind):
    grid = GRIDS[kind]

    assert grid_size(grid) == {"lightgbm": 9, "xgboost": 6}[kind]
    values = {name: each.choices for name, each in grid.items()}
    assert values.keys() == _default_params(kind).keys()
    assert all(_default_params(kind)[name] in choices for name, choices in values.items())
    assert make_grid(kind, values) == grid


@pytest.mark.parametrize("kind", SPACES)
def test_the_first_trial_of_the_built_in_space_is_the_default(kind):
    assert first_params(kind, SPACES[kind]) == _default_params(kind)


def test_the_first_trial_of_another_space_is_what_comes_nearest():
    space = {
        "learning_rate": FloatDistribution(0.01, 0.03),
        "num_leaves": IntDistribution(2, 62, step=10),
        "path_smooth": FloatDistribution(1, 100, log=True),
        "extra_trees": CategoricalDistribution((False, True)),
        "max_bin": CategoricalDistribution((255, 127)),
        "bagging_fraction": FloatDistribution(0.1, 0.9, step=0.2),
        "lambda_l1": CategoricalDistribution((3.0,)),  # fixed: no trial is asked for it
    }

    first = first_params("lightgbm", space)

    assert first == {
        "learning_rate": 0.03,
        "num_leaves": 2,  # 7 is half way; round goes to the even step
        "path_smooth": 10.0,
        "extra_trees": True,
        "max_bin": 255,
        "bagging_fraction": pytest.approx(0.9),
    }


@pytest.mark.parametrize("kind", SPACES)
def test_spaces_travel_to_other_processes(kind):
    space = pickle.loads(pickle.dumps(make_space(kind, {"max_bin": 15})))

    assert space == make_space(kind, {"max_bin": 15})
