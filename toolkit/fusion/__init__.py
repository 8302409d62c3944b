"""Fusion of modalities: late fusions, class offsets, and the fusion ledger.

Late fusions are rules over predictions of fitted systems, learnt from out-of-fold predictions
of training groups alone. Early fusion is a search over feature tables side by side
(:func:`toolkit.validation.make_features`), where an absent modality is a block of missing
values. :class:`LateFusion` has the late rules as a scikit-learn classifier.
"""

from toolkit.fusion.classifier import LateFusion
from toolkit.fusion.inputs import training_priors
from toolkit.fusion.late import LATE_METHODS, majority_vote, soft_vote

__all__ = ["LATE_METHODS", "LateFusion", "majority_vote", "soft_vote", "training_priors"]
