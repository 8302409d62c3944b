"""A row becomes probabilities: boosters, their search spaces, balancing, screening, baselines.

Everything here fits on the rows it is given and says what it did; which rows may be given to
it is decided in :mod:`toolkit.validation`.
"""

from toolkit.models.balancing import IMBALANCE, Balanced, balance
from toolkit.models.baselines import FittedLogistic, class_shares, fit_logistic
from toolkit.models.boosters import TrainingData, fit_booster, make_training_data
from toolkit.models.engines import BoosterError
from toolkit.models.fitted import FittedBooster, load_booster
from toolkit.models.preparation import (
    Features,
    Prepared,
    Recipe,
    parse_screening,
    prepare,
)
from toolkit.models.screening import screen_features
from toolkit.models.spaces import default_params, lightgbm_space, xgboost_space

__all__ = [
    "IMBALANCE",
    "Balanced",
    "BoosterError",
    "Features",
    "FittedBooster",
    "FittedLogistic",
    "Prepared",
    "Recipe",
    "TrainingData",
    "balance",
    "class_shares",
    "default_params",
    "fit_booster",
    "fit_logistic",
    "lightgbm_space",
    "load_booster",
    "make_training_data",
    "parse_screening",
    "prepare",
    "screen_features",
    "xgboost_space",
]
