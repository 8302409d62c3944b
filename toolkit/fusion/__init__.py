"""Modalities brought together, and what that changes.

Here are the late fusions (rules over the predictions of systems that are already fitted),
the class offsets, and the fusion ledger. Early fusion is no code of its own: it is a search
over several feature tables laid side by side by :func:`toolkit.validation.make_features`,
under the name ``early``, or ``early-text-audio`` for a subset in the manifest's column order;
an absent modality is a block of missing values there. :class:`LateFusion` puts the same rules
behind scikit-learn's ``fit`` and ``predict``, for classifiers of one's own.

Nothing else here fits a model, nothing reads a file, and whatever is learnt is learnt from the
out-of-fold predictions of an outer fold's training speakers.
"""

from toolkit.fusion.classifier import (
    LateFusion,
)
from toolkit.fusion.final import (
    NewPredictions,
    apply_final,
    describe_final,
    learn_final,
    restore_final,
)
from toolkit.fusion.fuse import (
    LATE_METHODS,
    FusionRecord,
    FusionResult,
    fuse_all,
    fusion_records,
)
from toolkit.fusion.inputs import (
    BasePredictions,
    InnerPredictions,
    make_base_predictions,
    training_priors,
)
from toolkit.fusion.late import (
    majority_vote,
    soft_vote,
)

__all__ = [
    "LATE_METHODS",
    "BasePredictions",
    "FusionRecord",
    "FusionResult",
    "InnerPredictions",
    "LateFusion",
    "NewPredictions",
    "apply_final",
    "describe_final",
    "fuse_all",
    "fusion_records",
    "learn_final",
    "majority_vote",
    "make_base_predictions",
    "restore_final",
    "soft_vote",
    "training_priors",
]
