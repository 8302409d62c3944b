"""Which modality drives it, and when: contributions, shares, games over modalities, frames.

Everything here explains predictions for people that a model never saw. Nothing here is a
claim about the world: it is said of models, and next to what the same numbers are when the
labels mean nothing. Drawing belongs to :mod:`toolkit.report`.
"""

from toolkit.explain.contributions import (
    FAMILIES,
    Explainer,
    ExplanationError,
    Totals,
    centre,
    check_explainer,
    contribution_blocks,
    explain_rows,
    family_of,
    fill_contributions,
    join_totals,
    make_explainer,
    sum_contributions,
)
from toolkit.explain.permutation import (
    PermutationRecord,
    compute_importance,
    permute_modality,
)
from toolkit.explain.shapley import (
    MAX_PLAYERS,
    RULES,
    GameRecord,
    ModalityGame,
    add_seed_noise,
    compute_modality_shapley,
    explain_modalities,
    interaction_index,
    late_systems,
    play_game,
    proper_subsets,
    shapley_values,
)
from toolkit.explain.shares import ShareRecord, compute_shares, explain_permuted, permute_within
from toolkit.explain.timeline import frame_weights, register_frame_weights, spread_over_frames

__all__ = [
    "FAMILIES",
    "MAX_PLAYERS",
    "RULES",
    "Explainer",
    "ExplanationError",
    "GameRecord",
    "ModalityGame",
    "PermutationRecord",
    "ShareRecord",
    "Totals",
    "add_seed_noise",
    "centre",
    "check_explainer",
    "compute_importance",
    "compute_modality_shapley",
    "compute_shares",
    "contribution_blocks",
    "explain_modalities",
    "explain_permuted",
    "explain_rows",
    "family_of",
    "fill_contributions",
    "frame_weights",
    "interaction_index",
    "join_totals",
    "late_systems",
    "make_explainer",
    "permute_modality",
    "permute_within",
    "play_game",
    "proper_subsets",
    "register_frame_weights",
    "shapley_values",
    "spread_over_frames",
    "sum_contributions",
]
