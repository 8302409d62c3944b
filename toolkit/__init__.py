"""Honest answers from multimodal recordings of people, with gradient boosting.

The rooms follow one another as the data flows: :mod:`toolkit.data`, :mod:`toolkit.pooling`,
:mod:`toolkit.models`, :mod:`toolkit.validation`, :mod:`toolkit.fusion`,
:mod:`toolkit.explain`, :mod:`toolkit.report`, :mod:`toolkit.study`. The names below are
imported at their first use, so that the command line answers at once.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from toolkit.data import make_corpus, read_manifest
    from toolkit.explain import compute_modality_shapley, play_game
    from toolkit.fusion import LateFusion, majority_vote, soft_vote, training_priors
    from toolkit.pooling import SequencePooler, pool_manifest
    from toolkit.study.config import StudyConfig
    from toolkit.study.predict import predict_new
    from toolkit.study.runner import run_study, study
    from toolkit.validation import (
        GroupedBoostingClassifier,
        Protocol,
        SearchOptions,
        compare_systems,
        majority_predictions,
        nested_cross_validate,
        no_information_predictions,
        score_predictions,
        speaker_folds,
    )

__version__ = "0.1.0"

__all__ = [
    "GroupedBoostingClassifier",
    "LateFusion",
    "Protocol",
    "SearchOptions",
    "SequencePooler",
    "StudyConfig",
    "compare_systems",
    "compute_modality_shapley",
    "majority_predictions",
    "majority_vote",
    "make_corpus",
    "nested_cross_validate",
    "no_information_predictions",
    "play_game",
    "pool_manifest",
    "predict_new",
    "read_manifest",
    "run_study",
    "score_predictions",
    "soft_vote",
    "speaker_folds",
    "study",
    "training_priors",
]

_HOMES = {
    "toolkit.data": ("make_corpus", "read_manifest"),
    "toolkit.explain": ("compute_modality_shapley", "play_game"),
    "toolkit.fusion": ("LateFusion", "majority_vote", "soft_vote", "training_priors"),
    "toolkit.pooling": ("SequencePooler", "pool_manifest"),
    "toolkit.study.config": ("StudyConfig",),
    "toolkit.study.predict": ("predict_new",),
    "toolkit.study.runner": ("run_study",),
    "toolkit.validation": (
        "GroupedBoostingClassifier",
        "Protocol",
        "SearchOptions",
        "compare_systems",
        "majority_predictions",
        "nested_cross_validate",
        "no_information_predictions",
        "score_predictions",
        "speaker_folds",
    ),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name == "study":  # a package that can be called
        return _import_module("toolkit.study")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(_import_module(home), name)
    raise AttributeError(f"module 'toolkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported yet or not."""
    return sorted({*__all__, "__version__"})
