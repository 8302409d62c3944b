"""From rows to class probabilities: boosters, search spaces, balancing, screening, baselines.

Everything is fitted on the given rows alone, and recorded. :mod:`toolkit.validation` decides
which rows a model may be given.
"""

from toolkit.models.balancing import RESAMPLING
from toolkit.models.baselines import class_priors, fit_logistic
from toolkit.models.boosters import check_device, fit_booster, make_training_data
from toolkit.models.fitted import FittedBooster
from toolkit.models.libraries import BoosterError, TrainingData
from toolkit.models.preparation import (
    Features,
    Prepared,
    Recipe,
    parse_screening,
    prepare,
    split_params,
)
from toolkit.models.screening import rank_features
from toolkit.models.spaces import (
    GRIDS,
    SPACES,
    first_params,
    grid_size,
    make_grid,
    make_space,
    suggest_values,
    to_params,
)

__all__ = [
    "GRIDS",
    "RESAMPLING",
    "SPACES",
    "BoosterError",
    "Features",
    "FittedBooster",
    "Prepared",
    "Recipe",
    "TrainingData",
    "check_device",
    "class_priors",
    "first_params",
    "fit_booster",
    "fit_logistic",
    "grid_size",
    "make_grid",
    "make_space",
    "make_training_data",
    "parse_screening",
    "prepare",
    "rank_features",
    "split_params",
    "suggest_values",
    "to_params",
]
