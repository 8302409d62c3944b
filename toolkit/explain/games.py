"""Systems of every set of modalities, for games over them."""

from __future__ import annotations

from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from toolkit.fusion.late import majority_vote, soft_vote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from toolkit.validation import Predictions

RULES: Final = MappingProxyType({"soft": soft_vote, "vote": majority_vote})
"""Late fusions that learn nothing, so that a set of modalities costs no fit."""


def proper_subsets(modalities: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """List the sets of modalities whose early fusion a game by refit adds to a study.

    Parameters
    ----------
    modalities : sequence of str
        All of them, in column order.

    Yields
    ------
    tuple of str
        Sets of two and more, but not all: singles and the whole are systems already.

    Examples
    --------
    >>> ["-".join(some) for some in proper_subsets(["visual", "audio", "text"])]
    ['visual-audio', 'visual-text', 'audio-text']
    """
    for size in range(2, len(modalities)):
        yield from combinations(modalities, size)


def late_systems(
    singles: Sequence[Predictions],
    majority: Predictions,
    shares: Mapping[int, NDArray[np.float64]],
    *,
    rule: str = "soft",
) -> dict[frozenset[str], Predictions]:
    """Fuse every set of modalities late.

    Parameters
    ----------
    singles : sequence of Predictions
        One a modality.
    majority : Predictions
        What the empty set predicts.
    shares : mapping of int to ndarray of float64
        Number of every fold to the class shares of its training rows.
    rule : {"soft", "vote"}, default="soft"
        How two and more are fused; a single one stands for itself.

    Returns
    -------
    dict of frozenset of str to Predictions
        For :func:`toolkit.explain.play_game`.

    Raises
    ------
    ValueError
        If the rule is unknown.
    """
    if rule not in RULES:
        raise ValueError(f"Unknown rule {rule!r}; choose among {', '.join(RULES)}.")
    systems: dict[frozenset[str], Predictions] = {frozenset(): majority}
    for size in range(1, len(singles) + 1):
        for some in combinations(singles, size):
            who = frozenset(single.system for single in some)
            systems[who] = some[0] if size == 1 else RULES[rule](some, shares)
    return systems
