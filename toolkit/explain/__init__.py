"""Attribution of predictions to modalities, statistics and frames.

These are contributions (TreeSHAP), their shares, permutation importance, games over modalities
and curves over frames, all of predictions for people that a model never saw. They describe
models and not the world, so shares are given beside their values under permuted labels. Drawing
belongs to :mod:`toolkit.report`.
"""

from toolkit.explain.contributions import Explainer, Totals, centre
from toolkit.explain.shapley import compute_modality_shapley, play_game
from toolkit.explain.shares import ShareRecord, explain_permuted
from toolkit.explain.timeline import register_frame_weights

__all__ = [
    "Explainer",
    "ShareRecord",
    "Totals",
    "centre",
    "compute_modality_shapley",
    "explain_permuted",
    "play_game",
    "register_frame_weights",
]
