"""Fusion of modalities: late fusions, class offsets, and the fusion ledger.

Late fusions are rules over the predictions of fitted systems. Early fusion has no code of its
own: it is a search over feature tables side by side (:func:`toolkit.validation.make_features`)
under the name ``early``, or ``early-text-audio`` for a subset in the manifest's column order.
An absent modality is a block of missing values there. :class:`LateFusion` is the same rules as
a scikit-learn classifier.

Nothing else here fits a model, nothing reads a file, and every fusion learns from out-of-fold
predictions of an outer fold's training groups alone.
"""

from toolkit.fusion.classifier import LateFusion
from toolkit.fusion.fuse import (
    FusionRecord,
    describe_fusions,
    fuse_systems,
    fusion_records,
)
from toolkit.fusion.inputs import InnerPredictions, training_priors
from toolkit.fusion.late import LATE_METHODS, majority_vote, soft_vote
from toolkit.fusion.learned import (
    NewPredictions,
    apply_fusion,
    describe_learned,
    learn_fusion,
    restore_learned,
)

__all__ = [
    "LATE_METHODS",
    "FusionRecord",
    "InnerPredictions",
    "LateFusion",
    "NewPredictions",
    "apply_fusion",
    "describe_fusions",
    "describe_learned",
    "fuse_systems",
    "fusion_records",
    "learn_fusion",
    "majority_vote",
    "restore_learned",
    "soft_vote",
    "training_priors",
]
