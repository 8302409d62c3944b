"""From rows to class probabilities: boosters, search spaces, balancing, screening, baselines.

Everything is fitted on the given rows alone, and recorded. :mod:`toolkit.validation` decides
which rows a model may be given.
"""

from toolkit.models.balancing import RESAMPLING
from toolkit.models.fitted import FittedBooster
from toolkit.models.libraries import BoosterError
from toolkit.models.linear import class_priors
from toolkit.models.preparation import Features, parse_screening
from toolkit.models.spaces import GRIDS, SPACES

__all__ = [
    "GRIDS",
    "RESAMPLING",
    "SPACES",
    "BoosterError",
    "Features",
    "FittedBooster",
    "class_priors",
    "parse_screening",
]
