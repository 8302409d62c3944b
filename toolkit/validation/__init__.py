"""Folds, nested search, leakage ledger, scores and comparisons of predictions.

Fitting a model is in :mod:`toolkit.models`; combining modalities is in :mod:`toolkit.fusion`.
"""

from toolkit.validation.comparison import (
    Comparison,
    compare_systems,
    no_information_predictions,
)
from toolkit.validation.estimator import GroupedBoostingClassifier
from toolkit.validation.fits import MOST_COLUMNS, WIDE_SCREEN, make_features
from toolkit.validation.folds import (
    FINAL,
    Fold,
    derive_seed,
    make_folds,
    outer_grouping,
    speaker_folds,
)
from toolkit.validation.ledger import ROLES, LeakageError
from toolkit.validation.metrics import METRICS
from toolkit.validation.nested import (
    Protocol,
    UnitResult,
    gather_predictions,
    majority_predictions,
    nested_cross_validate,
    run_logistic_unit,
    run_unit,
)
from toolkit.validation.predictions import Predictions
from toolkit.validation.scores import Score, score_predictions
from toolkit.validation.search import SearchOptions, SearchResult, create_studies

__all__ = [
    "FINAL",
    "METRICS",
    "MOST_COLUMNS",
    "ROLES",
    "WIDE_SCREEN",
    "Comparison",
    "Fold",
    "GroupedBoostingClassifier",
    "LeakageError",
    "Predictions",
    "Protocol",
    "Score",
    "SearchOptions",
    "SearchResult",
    "UnitResult",
    "compare_systems",
    "create_studies",
    "derive_seed",
    "gather_predictions",
    "majority_predictions",
    "make_features",
    "make_folds",
    "nested_cross_validate",
    "no_information_predictions",
    "outer_grouping",
    "run_logistic_unit",
    "run_unit",
    "score_predictions",
    "speaker_folds",
]
