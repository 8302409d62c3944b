"""Which modality drives it, and when: contributions, shares, games over modalities, frames.

Everything here explains predictions for people that a model never saw. Nothing here is a
claim about the world: it is said of models, and next to what the same numbers are when the
labels mean nothing.
"""

from toolkit.explain.contributions import (
    Explainer,
    ExplanationError,
    check_explainer,
    contribution_blocks,
    explain_rows,
    fill_contributions,
    make_explainer,
)
from toolkit.explain.families import FAMILIES, family_of

__all__ = [
    "FAMILIES",
    "Explainer",
    "ExplanationError",
    "check_explainer",
    "contribution_blocks",
    "explain_rows",
    "family_of",
    "fill_contributions",
    "make_explainer",
]
