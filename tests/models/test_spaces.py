import json

import numpy as np
import optuna
import pytest
from optuna.trial import FixedTrial

from toolkit.models import (
    lightgbm_space,
    xgboost_space,
)
from toolkit.models.engines import get_engine
from toolkit.models.spaces import default_params

SPACES = {"lightgbm": lightgbm_space, "xgboost": xgboost_space}
FRACTION = {"lightgbm": "feature_fraction", "xgboost": "colsample_bytree"}


def draw(kind, n_trials, **sizes):
    """Suggest parameters ``n_trials`` times at random, the defaults first."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(default_params(kind))
    drawn = []
    for _ in range(n_trials):
        trial = study.ask()
        drawn.append((trial, SPACES[kind](trial, **sizes)))
    return drawn


@pytest.mark.parametrize("kind", SPACES)
def test_suggestions_are_parameters_that_the_booster_knows(kind):
    _, params = draw(kind, 1, n_rows=500, n_features=768)[0]

    assert set(params) - {"max_bin"} <= get_engine(kind).PARAMETERS
    assert json.loads(json.dumps(params)) == params


@pytest.mark.parametrize("kind", SPACES)
def test_the_default_lies_inside_the_space_and_names_all_of_it(kind):
    trial, _ = draw(kind, 1, n_rows=500, n_features=768)[0]

    assert trial.params == default_params(kind)
    for name, distribution in trial.distributions.items():
        value = distribution.to_internal_repr(default_params(kind)[name])
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
        lightgbm_space(FixedTrial(default_params("lightgbm")), n_rows=n, n_features=10)
        for n in (100, 10_000)
    )

    assert few["min_data_in_leaf"] == 5
    assert many["min_data_in_leaf"] == 50


def test_no_leaf_is_asked_to_hold_nothing():
    drawn = draw("lightgbm", 30, n_rows=4, n_features=10)

    assert min(params["min_data_in_leaf"] for _, params in drawn) == 1


def test_an_unknown_booster_has_no_default():
    with pytest.raises(ValueError, match=r"Unknown booster 'catboost'"):
        default_params("catboost")
