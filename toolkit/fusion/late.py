"""Late fusion by rules that learn nothing: the vote, the mean, and the best modality.

They cost no search: what every modality predicted is on file. A modality that an utterance
lacks has no say in it, and an utterance that lacks all of them gets the class shares of its
training fold.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolkit.fusion.panels import Panel, Shares, Verdict, apply_rules, most_probable
from toolkit.fusion.voters import Voter, check_names, in_order
from toolkit.validation.metrics import METRICS
from toolkit.validation.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from toolkit.validation.ledger import Ledger


def majority_vote(voters: Sequence[Predictions], shares: Shares) -> Predictions:
    """Let every modality vote for the class it decides for.

    The class with most votes wins. A tie goes to the tied class with the highest summed
    probability, then to the one with the larger training share, then to the lower code.

    Parameters
    ----------
    voters : sequence of Predictions
        At least two, aligned.
    shares : mapping of int to ndarray of float64, shape (n_classes,)
        Number of every fold to the class shares of its training rows, as
        :func:`training_shares` or :meth:`Voter.training_shares` gives them.

    Returns
    -------
    Predictions
        Of the system ``vote``. The probability of a class is ``(n + q) / (V + 1)``: of the
        V voters present, n vote for it, and q is its mean probability. As q is below 1, it
        can decide a tie and nothing else.

    Raises
    ------
    ValueError
        If the voters are too few or too many, or not aligned.

    Examples
    --------
    All 64 ways in which three voters can choose among the classes a to d: the third voter is
    surest of its choice and the first least. A line for each vote of the third, a group for
    each vote of the first, a letter for each vote of the second. In 24 cases all three
    differ, and the surest has its way instead of the class that happens to come first.

    >>> import numpy as np
    >>> from itertools import product
    >>> from toolkit.validation.predictions import Predictions
    >>> ballots = np.array(list(product(range(4), repeat=3)))
    >>> ids = np.array([f"{row:02d}" for row in range(64)])
    >>> def say(name, choices, sure):
    ...     proba = np.full((64, 4), (1 - sure) / 3)
    ...     proba[np.arange(64), choices] = sure
    ...     zeros = np.zeros(64, dtype=np.int64)
    ...     return Predictions(name, tuple("abcd"), ids, ids, None, zeros, zeros == 0, zeros,
    ...                        proba)
    >>> third, first, second = (ballots[:, place] for place in range(3))
    >>> voters = [say("1", first, 0.4), say("2", second, 0.5), say("3", third, 0.7)]
    >>> fused = majority_vote(voters, {0: np.full(4, 0.25)})
    >>> letters = "".join(fused.classes[code] for code in fused.decided)
    >>> for vote in range(4):
    ...     groups = [letters[16 * vote + 4 * group :][:4] for group in range(4)]
    ...     fused.classes[vote], " ".join(groups)
    ('a', 'aaaa abaa aaca aaad')
    ('b', 'abbb bbbb bbcb bbbd')
    ('c', 'accc cbcc cccc cccd')
    ('d', 'addd dbdd ddcd dddd')
    """
    return apply_rules("vote", _aligned(voters), shares, dict.fromkeys(shares, count_votes))


def soft_vote(
    voters: Sequence[Predictions], shares: Shares, *, system: str = "soft"
) -> Predictions:
    """Average the probabilities of the voters present.

    Parameters
    ----------
    voters : sequence of Predictions
        At least two, aligned. With early fusion among them this is the system ``hybrid``.
    shares : mapping of int to ndarray of float64, shape (n_classes,)
        Number of every fold to the class shares of its training rows.
    system : str, default="soft"
        Name of the fused system.

    Returns
    -------
    Predictions
        The mean, and the class where it is highest; an exact tie goes to the class with the
        larger training share, then to the lower code.

    Raises
    ------
    ValueError
        If the voters are too few or too many, or not aligned.
    """
    return apply_rules(system, _aligned(voters), shares, dict.fromkeys(shares, average))


def best_single(
    voters: Sequence[Voter], ledgers: Mapping[int, Ledger], *, metric: str = "f1_micro"
) -> tuple[Voter, dict[int, str]]:
    """Take in every outer fold the modality whose search scored best there.

    The choice is made on the training speakers' scores. The modality that turns out best on
    the reported ones would be chosen with hindsight, and anything looks worse beside it.
    """
    ordered = in_order(voters)
    if unscored := [voter.system for voter in ordered if not voter.scores]:
        raise ValueError(
            f"{unscored} have no inner scores; expected voters that were searched, since the "
            "best one is chosen by its inner score."
        )
    sign = 1 if METRICS[metric].direction == "maximize" else -1
    first = ordered[0].predictions
    proba, decided = np.empty_like(first.proba), np.empty_like(first.decided)
    present = np.empty_like(first.present)
    inner, chosen, scores = {}, {}, {}
    for fold, rows in ordered[0].inner.items():
        ledgers[fold].record("best modality", "choose", rows.rows)
        best = ordered[int(np.argmax([sign * voter.scores[fold] for voter in ordered]))]
        tested = first.folds == fold
        proba[tested] = best.predictions.proba[tested]
        decided[tested] = best.predictions.decided[tested]
        present[tested] = best.predictions.present[tested]
        inner[fold], chosen[fold] = best.inner[fold], best.system
        scores[fold] = best.scores[fold]
    table = replace(first, system="best-single", present=present, proba=proba, decided=decided)
    return Voter(table, inner, scores), chosen


def count_votes(panel: Panel) -> Verdict:
    """Count votes, ties going to the highest summed probability."""
    counts = _count(panel)
    mean = average(panel).proba
    leading = counts == counts.max(axis=1, keepdims=True)
    decided = most_probable(np.where(leading, mean, -1.0), panel.shares)
    n_present = panel.present.sum(axis=0)
    return Verdict((counts + mean) / (n_present + 1)[:, None], decided)


def tied_votes(panel: Panel) -> NDArray[np.bool_]:
    """Say where the vote alone decides nothing.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where several classes have most votes; False where nobody voted.
    """
    counts = _count(panel)
    leading = counts == counts.max(axis=1, keepdims=True)
    return np.asarray(panel.seen & (leading.sum(axis=1) > 1))


def average(panel: Panel, weights: NDArray[np.float64] | None = None) -> Verdict:
    """Average probabilities over the voters present.

    Parameters
    ----------
    weights : ndarray of float64, shape (n_voters,), optional
        Weights of the voters, renormalised over those present; equal by default, and where
        all those present weigh nothing.
    """
    given = np.ones(len(panel.present)) if weights is None else weights
    held = panel.present * given[:, None]
    weightless = held.sum(axis=0) == 0
    held[:, weightless] = panel.present[:, weightless]
    total = np.where(panel.seen, held.sum(axis=0), 1.0)
    mixed = (held[:, :, None] * panel.proba).sum(axis=0) / total[:, None]
    proba = np.where(panel.seen[:, None], mixed, panel.shares)
    return Verdict(proba, most_probable(proba, panel.shares))


def _count(panel: Panel) -> NDArray[np.float64]:
    ballots = np.eye(panel.shares.shape[1])[panel.votes]
    return np.asarray((ballots * panel.present[:, :, None]).sum(axis=0))


def _aligned(voters: Sequence[Predictions]) -> list[Predictions]:
    check_names([voter.system for voter in voters])
    first, *others = ordered = sorted(voters, key=lambda voter: voter.system)
    for other in others:
        first.check_aligned(other)
    return ordered
