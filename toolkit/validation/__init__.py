"""Folds, nested search, leakage ledger, scores and comparisons of predictions.

Fitting a model is in :mod:`toolkit.models`; combining modalities is in :mod:`toolkit.fusion`.
"""

from toolkit.validation.comparison import (
    Comparison,
    better_baseline,
    compare_families,
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
from toolkit.validation.fixed import (
    FixedFits,
    PremiumScore,
    measure_chance,
    predict_curve,
    predict_rest,
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
from toolkit.validation.leakage import (
    N_PREMIUM_SEEDS,
    N_ROW_DRAWS,
    describe_gaps,
    measure_premium,
)
from toolkit.validation.ledger import ROLES, LeakageError, Ledger, audit_entries
from toolkit.validation.metrics import METRICS, Metric, confusion_matrices, reliability_bins
from toolkit.validation.nested import (
    Protocol,
    UnitResult,
    gather_predictions,
    majority_ledgers,
    majority_predictions,
    nested_cross_validate,
    run_logistic_unit,
    run_unit,
)
from toolkit.validation.predictions import Predictions, format_predictions, parse_predictions
from toolkit.validation.scores import Score, find_score, score_predictions
from toolkit.validation.search import (
    IMBALANCE_AUTO,
    IMBALANCE_GRID,
    SCREENING_AUTO,
    SCREENING_GRID,
    SearchOptions,
    SearchResult,
    count_trials,
    create_studies,
)
from toolkit.validation.seeds import average_seeds, group_seeds, score_systems
from toolkit.validation.trials import find_damage

__all__ = [
    "FINAL",
    "IMBALANCE_AUTO",
    "IMBALANCE_GRID",
    "METRICS",
    "MOST_COLUMNS",
    "N_PREMIUM_SEEDS",
    "N_ROW_DRAWS",
    "ROLES",
    "SCREENING_AUTO",
    "SCREENING_GRID",
    "WIDE_SCREEN",
    "Comparison",
    "FixedFits",
    "Fold",
    "GroupedBoostingClassifier",
    "LeakageError",
    "Ledger",
    "Metric",
    "Predictions",
    "PremiumScore",
    "Protocol",
    "Score",
    "SearchOptions",
    "SearchResult",
    "UnitResult",
    "audit_entries",
    "average_seeds",
    "better_baseline",
    "compare_families",
    "compare_systems",
    "confusion_matrices",
    "count_trials",
    "create_studies",
    "derive_seed",
    "describe_gaps",
    "estimate_memory",
    "final_fold",
    "find_damage",
    "find_score",
    "find_wide",
    "fold_name",
    "format_predictions",
    "gather_predictions",
    "group_seeds",
    "majority_ledgers",
    "majority_predictions",
    "make_features",
    "make_folds",
    "make_presets",
    "measure_chance",
    "measure_premium",
    "nested_cross_validate",
    "no_information_predictions",
    "outer_grouping",
    "parse_predictions",
    "predict_curve",
    "predict_rest",
    "reliability_bins",
    "resolve_outer",
    "run_logistic_unit",
    "run_unit",
    "score_predictions",
    "score_systems",
    "speaker_folds",
]
