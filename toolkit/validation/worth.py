"""What each choice of a search was worth, the others held equal.

All trials of all outer folds are compared on the one thing that every trial has, raced out or
not: its score over the first inner fold, whose rows are the same for all trials of a search.
Within an outer fold that score is taken to be a sum: a part for each discrete choice (booster,
statistics, screening, imbalance) and a slope for each number of the booster's own, fitted
over all trials by least squares. A choice's worth is its part less that of the first candidate
named, so it says how much better or worse trials with it scored that were alike otherwise.

It is a description of the searches, not a test: a sampler tries good points more often, an
additive model sees no interplay, and the training sets of outer folds overlap, so that the
jackknife over them gives a rough interval.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.validation.metrics import METRICS
from toolkit.validation.scores import jackknife_interval

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from toolkit.validation.search import SearchResult

CHOICES: Final = ("booster", "statistics", "screening", "imbalance")

# A share of the columns means another number of them under another screen.
_SHARES: Final = frozenset({"feature_fraction", "colsample_bytree"})


@dataclass(frozen=True, slots=True)
class ChoiceWorth:
    """How one candidate of a choice fared.

    - choice: ``booster``, ``statistics``, ``screening``, ``imbalance``, or a further parameter.
    - value: The candidate.
    - n_trials: Trials with it, over all outer folds.
    - n_chosen: Outer folds whose chosen trial has it.
    - n_folds: Outer folds.
    - worth: Score of the first inner fold against the choice's first candidate, whose own worth
      is 0; above 0 is better, whichever way the metric points.
    - low, high: Jackknife interval over outer folds; None for the first candidate and below
      five folds.
    """

    choice: str
    value: str
    n_trials: int
    n_chosen: int
    n_folds: int
    worth: float
    low: float | None
    high: float | None


def compute_worth(
    searches: Sequence[SearchResult], *, metric: str, also: Collection[str] = ()
) -> list[ChoiceWorth]:
    """Tell what each choice was worth and how often it was chosen.

    Parameters
    ----------
    searches : sequence of SearchResult
        Of one system, one an outer fold.
    metric : str
        Key of :data:`toolkit.validation.METRICS` that the searches went by.
    also : collection of str, default=()
        Further parameters with few values, such as those of a grid, that count as choices
        too. Over a whole grid a worth is the difference of mean scores.

    Returns
    -------
    list of ChoiceWorth
        One a candidate that any trial had, in the order of first use; nothing for a choice
        with a single candidate. Searches whose trials have no score of the first inner fold
        (of an older version) give none.
    """
    trials = [
        (fold, trial)
        for fold, search in enumerate(searches)
        for trial in search.trials
        if trial.get("first_score") is not None
    ]
    params = [trial["params"] for _, trial in trials]
    names = (*CHOICES, *also)
    # The other booster's trials lack a parameter: they have none of its values.
    values = {name: list(dict.fromkeys(p[name] for p in params if name in p)) for name in names}
    values = {name: found for name, found in values.items() if len(found) > 1}
    if not values:
        return []
    folds = np.array([fold for fold, _ in trials])
    sign = 1 if METRICS[metric].direction == "maximize" else -1
    scores = sign * np.array([trial["first_score"] for _, trial in trials])
    indicators = {
        (name, value): np.array([p.get(name) == value for p in params], dtype=np.float64)
        for name, found in values.items()
        for value in found[1:]
    }
    design = np.column_stack([*indicators.values(), *_slopes(params, names)])
    whole = _fit(design, scores, folds)[: len(indicators)]
    left_out = [
        _fit(design[folds != fold], scores[folds != fold], folds[folds != fold])
        for fold in np.unique(folds)
    ]
    tried = Counter((name, p.get(name)) for p in params for name in values)
    chosen = Counter((name, search.params.get(name)) for search in searches for name in values)
    places = {key: k for k, key in enumerate(indicators)}
    rows = []
    for name, found in values.items():
        for value in found:
            place = places.get((name, value))
            low = high = None
            if place is not None:
                rest = [fitted[place] for fitted in left_out]
                low, high = jackknife_interval(float(whole[place]), rest)
            rows.append(
                ChoiceWorth(
                    choice=name,
                    value=str(value),
                    n_trials=tried[name, value],
                    n_chosen=chosen[name, value],
                    n_folds=len(searches),
                    worth=0.0 if place is None else float(whole[place]),
                    low=low,
                    high=high,
                )
            )
    return rows


def _fit(
    design: NDArray[np.float64], scores: NDArray[np.float64], folds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Fit the additive model with a level of its own for every outer fold."""
    both = np.column_stack([design, scores])
    for fold in np.unique(folds):
        both[folds == fold] -= both[folds == fold].mean(axis=0)
    found = np.linalg.lstsq(both[:, :-1], both[:, -1], rcond=None)[0]
    return np.asarray(found, dtype=np.float64)


def _slopes(
    params: Sequence[Mapping[str, Any]], choices: Collection[str]
) -> Iterator[NDArray[np.float64]]:
    """Give a column for each number of the boosters' own, of mean 0 and deviation 1."""
    names = sorted({name for p in params for name in p} - set(choices))
    for name in names:
        has = np.array([isinstance(p.get(name), int | float) for p in params])
        if not has.any():
            continue
        mine = [p for p, here in zip(params, has, strict=True) if here]
        numbers = np.array([float(p[name]) for p in mine])
        if (numbers > 0).all():
            numbers = np.log(numbers)
        kinds = np.zeros(len(numbers), dtype=np.int64)
        if name in _SHARES:
            places = [(p["statistics"], p["screening"]) for p in mine]
            kinds = np.unique(np.array(places), axis=0, return_inverse=True)[1].reshape(-1)
        for kind in np.unique(kinds):
            numbers[kinds == kind] -= numbers[kinds == kind].mean()
        spread = numbers.std()
        if spread > 1e-12:
            column = np.zeros(len(params))
            column[has] = numbers / spread
            yield column
