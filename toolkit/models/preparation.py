"""From the rows of a training fold to what a booster learns from: choose, screen, balance, bin.

Everything here is fitted on the rows it is given and on no others, and says what it did, so
that whoever calls it can write down which rows took part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.models.balancing import balance
from toolkit.models.boosters import TrainingData, make_training_data
from toolkit.models.screening import SCORES, rank_features

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_BLOCK_ROWS: Final = 256
_RECIPE_KEYS: Final = ("booster", "statistics", "screening", "imbalance")


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The pooled features of every utterance, with the column sets a search may choose from.

    Parameters
    ----------
    values : ndarray of float32, shape (n, n_features)
        One row an utterance of the manifest; usually memory-mapped. Missing values are NaN.
    names : tuple of str
        The features' names.
    present : ndarray of bool, shape (n,)
        Whether the utterance has the modality (or any of them).
    presets : mapping of str to ndarray of int64
        Name of a statistics preset to the positions of its columns.
    reduced : mapping of str to mapping
        Modality to the presets of which a smaller one stands in: what it is, its number of
        columns, and the number of those asked for.
    """

    values: NDArray[np.float32]
    names: tuple[str, ...]
    present: NDArray[np.bool_]
    presets: Mapping[str, NDArray[np.int64]]
    reduced: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def take(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Copy some rows and columns.

        Parameters
        ----------
        rows, columns : ndarray of int64
            Positions.

        Returns
        -------
        ndarray of float32, shape (len(rows), len(columns))
            C-contiguous: boosters give other results for other memory orders.
        """
        if np.array_equal(columns, np.arange(self.values.shape[1])):
            return np.ascontiguousarray(self.values[rows])
        taken = np.empty((len(rows), len(columns)), dtype=self.values.dtype)
        # In blocks, so that few columns of a wide table do not cost a copy of all of them.
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            taken[block] = self.values[rows[block]][:, columns]
        return taken


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to training rows before boosting: the discrete half of a trial's choices.

    Parameters
    ----------
    booster : str
        ``"lightgbm"`` or ``"xgboost"``.
    statistics : str
        A key of ``Features.presets``.
    screening : str
        ``"none"`` or a method and the number of features kept, such as ``"ftest-500"``.
    imbalance : str
        One of :data:`toolkit.models.IMBALANCE`.
    max_bin : int
        Number of bins a feature.
    """

    booster: str
    statistics: str
    screening: str
    imbalance: str
    max_bin: int


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Binned training rows and how they came about.

    Parameters
    ----------
    data : TrainingData
        What a booster is fitted on.
    columns : ndarray of int64
        Positions of the features used, in their order.
    names : tuple of str
        Their names.
    record : mapping
        What the balancing did: counts, clips and fallbacks.
    parents : tuple of tuple
        Of the rows that the balancing added, those of one origin together: their class,
        their number, and the rows that they were copied from or between which they lie.
    """

    data: TrainingData
    columns: NDArray[np.int64]
    names: tuple[str, ...]
    record: Mapping[str, Any]
    parents: tuple[tuple[int, int, NDArray[np.int64]], ...]


def split_params(params: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Separate what is done to the rows from what is handed to the booster.

    Parameters
    ----------
    params : mapping
        A trial's parameters.

    Returns
    -------
    tuple of Recipe and dict
        The recipe, and the booster's own parameters.
    """
    own = {key: value for key, value in params.items() if key not in _RECIPE_KEYS}
    max_bin = own.pop("max_bin")
    return Recipe(max_bin=max_bin, **{key: params[key] for key in _RECIPE_KEYS}), own


def parse_screening(screening: str) -> tuple[str, int]:
    """Split a screening choice into its method and the number of features kept.

    Parameters
    ----------
    screening : str
        ``"none"`` or for example ``"ftest-500"``.

    Returns
    -------
    tuple of str and int
        The number is 0 for ``"none"``.

    Raises
    ------
    ValueError
        If it reads otherwise.

    Examples
    --------
    >>> parse_screening("ftest-500")
    ('ftest', 500)
    """
    method, _, number = screening.partition("-")
    if screening == "none":
        return "none", 0
    if method not in SCORES or not number.isdecimal() or int(number) < 1:
        raise ValueError(
            f"Unknown screening {screening!r}; choose none, or one of {', '.join(SCORES)} with "
            "the number of features to keep, such as ftest-500."
        )
    return method, int(number)


def is_screened(recipe: Recipe, features: Features) -> bool:
    """Tell whether a recipe leaves columns out.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    features : Features
        All utterances.

    Returns
    -------
    bool
        False too for a screen that would keep them all.
    """
    n_kept = parse_screening(recipe.screening)[1]
    return 0 < n_kept < len(features.presets[recipe.statistics])


def prepare(
    recipe: Recipe,
    features: Features,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    n_classes: int,
    seed: int,
    reference: TrainingData | None = None,
    places: NDArray[np.int64] | None = None,
    ranking: NDArray[np.int64] | None = None,
    device: str = "cpu",
) -> Prepared:
    """Make training data of some rows by a recipe.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    features : Features
        All utterances.
    rows : ndarray of int64
        The rows to learn from, and the only ones looked at.
    labels : ndarray of int64, shape (n,)
        Labels of all utterances; only those of ``rows`` are read.
    n_classes : int
        Number of the study's classes.
    seed : int
        For the resampling.
    reference : TrainingData, optional
        Binned rows whose bin edges are taken over. Used where nothing is screened, since
        screened folds keep other columns.
    places : ndarray of int64, optional
        Where ``rows`` stand among the reference's, which then need not be binned again.
    ranking : ndarray of int64, optional
        What :func:`toolkit.models.rank_features` said of the same rows, the preset's columns
        and the recipe's method; asked here where a screen needs it and it is not given.
    device : {"cpu", "cuda"}
        Where boosters will learn from the rows.

    Returns
    -------
    Prepared
        Ready to be fitted, any number of times.
    """
    columns = features.presets[recipe.statistics]
    y = labels[rows]
    if is_screened(recipe, features):
        method, n_kept = parse_screening(recipe.screening)
        if ranking is None:
            ranking = rank_features(features.take(rows, columns), y, method)
        columns = columns[np.sort(ranking[:n_kept])]
        reference = places = None
    X = features.take(rows, columns)
    names = tuple(features.names[column] for column in columns)
    balanced = balance(X, y, recipe.imbalance, seed=seed)
    unchanged = balanced.n_given == len(rows) == len(balanced.y)
    data = make_training_data(
        recipe.booster,
        balanced.X,
        balanced.y,
        n_classes=n_classes,
        names=names,
        max_bin=recipe.max_bin,
        weights=balanced.weights,
        reference=reference,
        places=places if unchanged else None,
        device=device,
    )
    parents = tuple(
        (label, len(added), rows[given]) for label, added, given in balanced.origins()
    )
    return Prepared(data, columns, names, MappingProxyType(dict(balanced.record)), parents)
