"""Folds, nested search, leakage ledger, scores and comparisons of predictions.

Fitting a model is in :mod:`toolkit.models`; combining modalities is in :mod:`toolkit.fusion`.
"""

from toolkit.validation.comparison import (
    Comparison,
    compare_systems,
    no_information_predictions,
)
from toolkit.validation.estimator import GroupedBoostingClassifier
from toolkit.validation.fits import (
    MOST_COLUMNS,
    WIDE_SCREEN,
    estimate_memory,
    find_wide,
    make_features,
    make_presets,
)
from toolkit.validation.folds import (
    FINAL,
    Fold,
    derive_seed,
    final_fold,
    fold_name,
    make_folds,
    outer_grouping,
    resolve_outer,
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
from toolkit.validation.search import (
    IMBALANCE_AUTO,
    IMBALANCE_GRID,
    SCREENING_AUTO,
    SCREENING_GRID,
    SearchOptions,
    SearchResult,
    count_trials,
    create_studies,
    size_searches,
)
from toolkit.validation.trials import find_damage

__all__ = [
    "FINAL",
    "IMBALANCE_AUTO",
    "IMBALANCE_GRID",
    "METRICS",
    "MOST_COLUMNS",
    "ROLES",
    "SCREENING_AUTO",
    "SCREENING_GRID",
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
    "count_trials",
    "create_studies",
    "derive_seed",
    "estimate_memory",
    "final_fold",
    "find_damage",
    "find_wide",
    "fold_name",
    "gather_predictions",
    "majority_predictions",
    "make_features",
    "make_folds",
    "make_presets",
    "nested_cross_validate",
    "no_information_predictions",
    "outer_grouping",
    "resolve_outer",
    "run_logistic_unit",
    "run_unit",
    "score_predictions",
    "size_searches",
    "speaker_folds",
]
