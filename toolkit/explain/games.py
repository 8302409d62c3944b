"""Systems of every set of modalities, for games over them."""

from __future__ import annotations

from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from toolkit.explain.shapley import GameRecord, play_game
from toolkit.fusion.inputs import training_shares
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


def compute_modality_shapley(
    singles: Sequence[Predictions],
    majority: Predictions,
    *,
    rule: str = "soft",
    metric: str = "f1_micro",
) -> list[GameRecord]:
    """Say what each modality adds to late fusion, as Shapley values.

    Parameters
    ----------
    singles : sequence of Predictions
        One a modality, two to five.
    majority : Predictions
        From :func:`toolkit.validation.majority_predictions` over the same folds: what no
        modality at all is worth, and the class shares of every fold's training rows.
    rule : {"soft", "vote"}, default="soft"
        How two modalities and more are fused.
    metric : str, default="f1_micro"
        What a set of modalities is worth.

    Returns
    -------
    list of GameRecord
        Worth of every set, Shapley value of every modality and interaction of every pair, over
        all classes and by class, with jackknife intervals over speakers. The Shapley values
        sum to what all modalities together gain over ``majority``.

    Raises
    ------
    ValueError
        If there are too few or too many modalities, or the predictions are not aligned.

    Examples
    --------
    >>> import numpy as np
    >>> from toolkit.validation.predictions import Predictions
    >>> ids, zeros = np.array(list("abcd")), np.zeros(4, dtype=np.int64)
    >>> def say(name, *sure):
    ...     proba = np.column_stack([1 - np.array(sure), sure])
    ...     truth = np.array([0, 0, 1, 1])
    ...     return Predictions(name, ("no", "yes"), ids, ids, None, zeros, zeros == 0, truth,
    ...                        proba)
    >>> voice, face = say("voice", 0.1, 0.2, 0.9, 0.8), say("face", 0.3, 0.6, 0.6, 0.4)
    >>> records = compute_modality_shapley([voice, face], say("majority", *[0.5] * 4))
    >>> [(r.players, r.value) for r in records if (r.kind, r.group) == ("value", "")]
    [('voice', 0.5), ('face', 0.0)]
    """
    systems = late_systems(singles, majority, training_shares(majority), rule=rule)
    names = [single.system for single in singles]
    return play_game(f"late-{rule}", names, systems, metric=metric)
