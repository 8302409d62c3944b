"""A user's ranges and grids: what they say is searched, what they do not say stays."""

import pickle

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from toolkit.models import (
    GRIDS,
    first_params,
    grid_size,
    grid_space,
    lightgbm_space,
    make_grid,
    make_space,
    xgboost_space,
)
from toolkit.models.engines import get_engine
from toolkit.models.spaces import default_params

BUILT_IN = {"lightgbm": lightgbm_space, "xgboost": xgboost_space}
SIZE = {"n_rows": 400, "n_features": 100}


def distributions(space):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    params = space(trial, **SIZE)
    return trial.distributions, params


@pytest.mark.parametrize("kind", BUILT_IN)
def test_an_empty_table_is_the_built_in_space(kind):
    assert distributions(make_space(kind, {})) == distributions(BUILT_IN[kind])


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
    found, _ = distributions(make_space("lightgbm", {"lambda_l2": value}))

    assert found["lambda_l2"] == expected
    others = distributions(lightgbm_space)[0]
    assert {k: v for k, v in found.items() if k != "lambda_l2"} == {
        k: v for k, v in others.items() if k != "lambda_l2"
    }


def test_whole_numbers_stay_whole():
    found, params = distributions(make_space("xgboost", {"max_depth": [2, 6], "gamma": 1}))

    assert found["max_depth"] == IntDistribution(2, 6)
    assert (type(params["max_depth"]), params["gamma"]) == (int, 1.0)


@pytest.mark.parametrize("kind", BUILT_IN)
def test_a_single_value_is_fixed_and_no_choice(kind):
    step = {"lightgbm": "learning_rate", "xgboost": "eta"}[kind]

    found, params = distributions(make_space(kind, {step: 0.3}))

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
    found, params = distributions(make_space(kind, {own: {"choices": [1, 2, 3]}}))

    assert root not in found
    assert params[own] in {1, 2, 3}
    with pytest.raises(ValueError, match=f"{own} and {root} say the same"):
        make_space(kind, {own: 1, root: 1})


@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_parameter_of_the_booster_may_be_named(kind):
    for name in get_engine(kind).PARAMETERS:
        _, params = distributions(make_space(kind, {name: 1}))
        assert params[name] == 1


def test_a_bagging_frequency_that_was_said_stays():
    assert distributions(make_space("lightgbm", {"bagging_freq": 5}))[1]["bagging_freq"] == 5


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


@pytest.mark.parametrize("kind", BUILT_IN)
def test_what_a_grid_does_not_name_is_at_the_default(kind):
    grid = make_grid(kind, {"max_bin": [15, 255]})
    default = BUILT_IN[kind](FixedTrial(default_params(kind)), **SIZE)

    point = grid_space(kind, grid)(FixedTrial({"max_bin": 255}), **SIZE)

    assert point == default | {"max_bin": 255}


@pytest.mark.parametrize("kind", BUILT_IN)
def test_the_default_grid_has_the_strong_default_among_its_points(kind):
    grid = GRIDS[kind]

    assert 6 <= grid_size(grid) <= 24
    assert all(default_params(kind)[name] in values for name, values in grid.items())
    assert make_grid(kind, grid) == grid


@pytest.mark.parametrize("kind", BUILT_IN)
def test_the_first_trial_of_the_built_in_space_is_the_default(kind):
    assert first_params(kind, BUILT_IN[kind], **SIZE) == default_params(kind)


def test_the_first_trial_of_another_space_is_what_comes_nearest():
    def space(trial, **_):
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.05),
            "num_leaves": trial.suggest_int("num_leaves", 2, 62, step=10),
            "path_smooth": trial.suggest_float("path_smooth", 1, 100, log=True),
            "extra_trees": trial.suggest_categorical("extra_trees", [False, True]),
            "max_bin": trial.suggest_categorical("max_bin", [255, 127]),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.1, 0.9, step=0.2),
        }

    first = first_params("lightgbm", space, **SIZE)

    assert first == {
        "learning_rate": 0.05,
        "num_leaves": 2,  # 7 is half way; round goes to the even step
        "path_smooth": 10.0,
        "extra_trees": True,
        "max_bin": 255,
        "bagging_fraction": pytest.approx(0.9),
    }


@pytest.mark.parametrize("kind", BUILT_IN)
def test_spaces_travel_to_other_processes(kind):
    space = pickle.loads(pickle.dumps(make_space(kind, {"max_bin": 15})))

    assert distributions(space) == distributions(make_space(kind, {"max_bin": 15}))
