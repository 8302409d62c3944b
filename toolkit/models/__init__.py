"""From rows to class probabilities: boosters, search spaces, balancing, screening, baselines.

Everything is fitted on the given rows alone, and recorded. :mod:`toolkit.validation` decides
which rows a model may be given.
"""

from toolkit.models.balancing import RESAMPLING
from toolkit.models.baselines import class_priors
from toolkit.models.boosters import check_device, fit_booster, make_training_data
from toolkit.models.fitted import FittedBooster
from toolkit.models.libraries import BoosterError, TrainingData
from toolkit.models.linear import (
    MULTIPLES,
    LinearModel,
    LinearPath,
    mix_margins,
    weigh_margins,
)
from toolkit.models.preparation import (
    Features,
    Prepared,
    Recipe,
    balance_rows,
    parse_screening,
    prepare,
    rank_columns,
    split_params,
)
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
    "MULTIPLES",
    "RESAMPLING",
    "SPACES",
    "BoosterError",
    "Features",
    "FittedBooster",
    "LinearModel",
    "LinearPath",
    "Prepared",
    "Recipe",
    "TrainingData",
    "balance_rows",
    "check_device",
    "class_priors",
    "first_params",
    "fit_booster",
    "grid_size",
    "make_grid",
    "make_space",
    "make_training_data",
    "mix_margins",
    "parse_screening",
    "prepare",
    "rank_columns",
    "split_params",
    "suggest_values",
    "to_params",
    "weigh_margins",
]
