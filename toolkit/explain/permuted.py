"""What the shares would be if the labels meant nothing: refits on permuted labels.

They are permuted within speaker, and a refit uses the parameters that the search chose for
the true labels, so each costs one fit: 5 repeats beside a search of 20 trials over 3 inner
folds (64 fits a unit) are 8 % more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.explain.contributions import make_explainer
from toolkit.explain.totals import sum_contributions
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from toolkit.explain.totals import Totals
    from toolkit.models import Features
    from toolkit.validation import Fold, Ledger

N_REPEATS: Final = 5
"""Permutations of the labels."""


def permute_within(
    labels: NDArray[np.int64], groups: NDArray[np.str_], seed: int
) -> NDArray[np.int64]:
    """Shuffle labels among the rows of each group.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        Labels.
    groups : ndarray of str, shape (n,)
        Speaker of every row: class shares of a speaker stay as they are.

    Returns
    -------
    ndarray of int64, shape (n,)
        The shuffled labels.

    Examples
    --------
    >>> import numpy as np
    >>> labels, groups = np.array([0, 1, 1, 2, 2, 2]), np.array(list("aabbbb"))
    >>> shuffled = permute_within(labels, groups, seed=0)
    >>> sorted(shuffled[:2].tolist()), sorted(shuffled[2:].tolist())
    ([0, 1], [1, 2, 2, 2])
    """
    rng = np.random.default_rng(seed)
    shuffled = labels.copy()
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        shuffled[rows] = labels[rng.permutation(rows)]
    return shuffled


def explain_permuted(
    features: Features,
    labels: NDArray[np.int64],
    speakers: NDArray[np.str_],
    fold: Fold,
    params: Mapping[str, Any],
    *,
    n_rounds: int,
    n_classes: int,
    ledger: Ledger,
    seed: int,
    n_repeats: int = N_REPEATS,
) -> list[Totals]:
    """Refit a unit on permuted labels and explain its held-out rows.

    Parameters
    ----------
    features : Features
        What the system sees.
    labels : ndarray of int64, shape (n,)
        Labels of all utterances.
    speakers : ndarray of str, shape (n,)
        Speaker of every utterance.
    fold : Fold
        The outer fold.
    params : mapping
        The parameters that its search chose.
    n_rounds : int
        The rounds that its search chose.
    n_classes : int
        Number of the study's classes.
    ledger : Ledger
        Where every fit writes down its rows.
    seed : int
        The unit's seed.
    n_repeats : int, default=5
        Permutations.

    Returns
    -------
    list of Totals
        Of the test rows that have the modality, in their order.
    """
    rows = fold.train[features.present[fold.train]]
    asked = fold.test[features.present[fold.test]]
    totals = []
    for repeat in range(n_repeats):
        shuffled = permute_within(labels, speakers, derive_seed(seed, "permuted", repeat))
        fits = InnerFits(
            features, shuffled, rows, n_classes=n_classes, ledger=ledger, seed=seed
        )
        booster, prepared = fits.fit(
            params, rows, fit=f"permuted labels {repeat}", n_rounds=n_rounds
        )
        X = features.take(asked, prepared.columns)
        totals.append(sum_contributions(make_explainer(booster), X))
    return totals
