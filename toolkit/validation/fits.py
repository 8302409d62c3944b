"""Fits inside one outer fold: every row that a booster touches passes through here.

:class:`InnerFits` holds what the inner fits of a unit share (binned rows, prepared training
sets, the ledger), so that a trial costs its boosting rounds and little else.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.models import (
    RESAMPLING,
    Features,
    FittedBooster,
    Recipe,
    TrainingData,
    class_priors,
    fit_booster,
    is_screened,
    make_training_data,
    parse_screening,
    prepare,
    rank_features,
    split_params,
)
from toolkit.pooling import PRESETS
from toolkit.validation.folds import derive_seed
from toolkit.validation.racing import take_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from toolkit.models import Prepared
    from toolkit.pooling import FeatureTable
    from toolkit.validation.folds import Fold
    from toolkit.validation.ledger import Ledger
    from toolkit.validation.racing import Checkpoint


class RoundPath:
    """Keep the validation probabilities of every round, in half the memory they came in.

    Examples
    --------
    >>> import numpy as np
    >>> path = RoundPath()
    >>> for sure in (0.5, 0.75):
    ...     path.follow(np.array([[sure, 1 - sure]]))
    >>> path.after(1).tolist(), path.after(9).tolist()
    ([[0.5, 0.5]], [[0.75, 0.25]])
    """

    def __init__(self) -> None:
        self._rounds: list[NDArray[np.float32]] = []

    def follow(self, proba: NDArray[np.float64]) -> None:
        """Add the next round.

        Parameters
        ----------
        proba : ndarray of float64, shape (n, n_classes)
            Class probabilities of the validation rows after it.
        """
        self._rounds.append(proba.astype(np.float32))

    def after(self, n_rounds: int) -> NDArray[np.float64]:
        """Give the probabilities after some rounds, or at the end of a shorter path.

        Returns
        -------
        ndarray of float64, shape (n, n_classes)
            Class probabilities of the validation rows.
        """
        return self._rounds[min(n_rounds, len(self._rounds)) - 1].astype(np.float64)


def best_rounds(curves: Sequence[NDArray[np.float64]]) -> int:
    """Find the number of rounds at which the mean validation curve is lowest.

    Examples
    --------
    >>> import numpy as np
    >>> best_rounds([np.array([3.0, 2.0, 2.5]), np.array([3.0, 2.5, 2.0, 1.0])])
    4
    """
    length = max(len(curve) for curve in curves)
    padded = [np.pad(curve, (0, length - len(curve)), mode="edge") for curve in curves]
    return int(np.argmin(np.mean(padded, axis=0))) + 1


#: Pooled columns of a modality above which fewer statistics are taken, unless all are wanted:
#: 18 statistics of 1,024 dimensions stay whole, those of 2,048 do not.
MOST_COLUMNS: Final = 20_000

_SMALLER: Final = ("rich", "basic", "minimal")


def make_features(
    tables: Sequence[FeatureTable],
    presets: Sequence[str],
    *,
    most_columns: int | None = None,
) -> Features:
    """Lay feature tables side by side for the models.

    Parameters
    ----------
    tables : sequence of FeatureTable
        At least one, over the same utterances.
    presets : sequence of str
        Statistics presets (or comma-separated statistics) that a search may choose among.
    most_columns : int, optional
        Columns of a table above which a smaller preset is taken. Statistics that were
        named one by one are taken as they are.

    Returns
    -------
    Features
        With one column set a preset; an utterance is present where any table has it.
        ``reduced`` tells which preset stands for which, a modality.
    """
    taken = [make_presets(table, presets, most_columns) for table in tables]
    reduced = {
        table.modality: found for table, (_, found) in zip(tables, taken, strict=True) if found
    }
    present = np.any([table.present for table in tables], axis=0)
    if len(tables) == 1:
        table, (columns, _) = tables[0], taken[0]
        return Features(table.values, table.names, present, columns, reduced)
    # Side by side tables are a copy in memory: columns that no preset takes stay out of it.
    needed = [np.unique(np.concatenate(list(columns.values()))) for columns, _ in taken]
    starts = np.cumsum([0, *map(len, needed)])
    return Features(
        values=np.hstack(
            [
                table.values if len(kept) == len(table.names) else table.values[:, kept]
                for table, kept in zip(tables, needed, strict=True)
            ]
        ),
        names=tuple(
            table.names[column]
            for table, kept in zip(tables, needed, strict=True)
            for column in kept
        ),
        present=present,
        presets={
            preset: np.concatenate(
                [
                    start + np.searchsorted(kept, columns[preset])
                    for start, kept, (columns, _) in zip(starts, needed, taken, strict=False)
                ]
            )
            for preset in presets
        },
        reduced=reduced,
    )


def make_presets(
    table: FeatureTable, presets: Sequence[str], most_columns: int | None
) -> tuple[dict[str, NDArray[np.int64]], dict[str, Any]]:
    """Choose a table's columns under each preset, and say where a smaller one stands in.

    Parameters
    ----------
    table : FeatureTable
        The pooled features of one modality.
    presets : sequence of str
        What is asked of it.
    most_columns : int or None
        As in :func:`make_features`.

    Returns
    -------
    tuple of dict
        Preset to its columns; and of those with a stand-in its name and numbers of columns.
    """
    columns, reduced = {}, {}
    for preset in presets:
        columns[preset] = table.select(preset)
        n_asked = len(columns[preset])
        if most_columns is None or n_asked <= most_columns or preset not in PRESETS:
            continue
        stand_in = _smaller_preset(table, n_asked, most_columns)
        if stand_in is not None:
            columns[preset] = table.select(stand_in)
            reduced[preset] = {
                "statistics": stand_in,
                "n_columns": len(columns[preset]),
                "n_asked": n_asked,
            }
    return columns, reduced


def _smaller_preset(table: FeatureTable, n_asked: int, most_columns: int) -> str | None:
    """Find the largest preset that the table holds and the limit allows, or the smallest."""
    held = [name for name in _SMALLER if set(PRESETS[name]) <= set(table.statistics)]
    smaller = [name for name in held if len(PRESETS[name]) * table.n_dims < n_asked]
    fitting = [name for name in smaller if len(PRESETS[name]) * table.n_dims <= most_columns]
    return next(iter(fitting or smaller[-1:]), None)


#: Bytes of binned rows that a worker keeps for later trials.
CACHE_BYTES: Final = 2**30

#: A worker with every library imported and nothing to do.
_IDLE: Final = 250 * 2**20
# Bytes a value of binned rows: XGBoost keeps them by rows and by columns.
_BINNED: Final = {"lightgbm": 1, "xgboost": 3}
# A histogram holds two float64 numbers a bin; leaves and bins are the most that the built-in
# spaces ask for.
_HISTOGRAMS: Final = 16 * 64 * 24
# Float32 rows once; where rows are made, once more with the new ones and in float64 while
# neighbours are looked for.
_ROWS, _ROWS_RESAMPLED = 4, 12
# The same rows in float64 and their complete, standardised copy.
_LOGISTIC: Final = 4 + 8 + 4


class SizedCache:
    """Keep what was made last, as long as all of it stays below a number of bytes.

    - n_bytes: The bound. What was made last is kept even if it alone is larger.

    Examples
    --------
    >>> cache = SizedCache(10)
    >>> cache.get("a", lambda: ("made", 4)), cache.get("a", lambda: ("made again", 4))
    ('made', 'made')
    """

    def __init__(self, n_bytes: int) -> None:
        self._most = n_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """Look something up, or make it."""
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > 1 and self.n_bytes > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][0]

    @property
    def n_bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(size for _, size in self._kept.values())


def binned_bytes(*data: TrainingData) -> int:
    """Tell how much memory binned rows take."""
    return sum(_BINNED[each.kind] * len(each.labels) * len(each.names) for each in data)


def estimate_memory(
    n_rows: int,
    n_columns: int,
    *,
    side_by_side: int = 0,
    resampled: bool = True,
    logistic: bool = False,
) -> int:
    """Estimate the most memory that one unit takes at a time.

    Parameters
    ----------
    n_rows : int
        Utterances.
    n_columns : int
        Columns of the widest preset that the unit may choose.
    side_by_side : int, default=0
        Columns of the tables that are copied side by side into memory, as early fusion does.
    resampled : bool, default=True
        Whether training rows may be made or copied.
    logistic : bool, default=False
        Whether it is a logistic regression.

    Returns
    -------
    int
        Bytes.

    Examples
    --------
    >>> round(estimate_memory(5531, 36_864) / 2**30, 1)
    4.4
    """
    table = 4 * n_rows * side_by_side
    values = n_rows * n_columns
    if logistic:
        return _IDLE + table + _LOGISTIC * values
    rows = (_ROWS_RESAMPLED if resampled else _ROWS) * values
    # The cache may go over its bound by what was put into it last.
    return _IDLE + table + rows + CACHE_BYTES + _HISTOGRAMS * n_columns


class InnerFits:
    """Fit boosters inside one outer fold; prepared training sets are kept for later trials.

    Parameters
    ----------
    features : Features
        All utterances.
    labels : ndarray of int64
        Labels of all utterances.
    outer_rows : ndarray of int64
        The outer fold's training rows that have the modality.
    n_classes : int
        Number of the study's classes.
    ledger : Ledger
        Where every fit writes down its rows.
    seed : int
        The unit's seed.
    n_threads : int, default=1
        Threads of a fit.
    device : {"cpu", "cuda"}
        Where boosters are fitted.
    """

    def __init__(
        self,
        features: Features,
        labels: NDArray[np.int64],
        outer_rows: NDArray[np.int64],
        *,
        n_classes: int,
        ledger: Ledger,
        seed: int,
        n_threads: int = 1,
        device: str = "cpu",
    ) -> None:
        self.features = features
        self.labels = labels
        self.outer_rows = outer_rows
        self.n_classes = n_classes
        self.ledger = ledger
        self.seed = seed
        self.n_threads = n_threads
        self.device = device
        # A training set is binned once and serves every trial that asks for the same one.
        self._binned = SizedCache(CACHE_BYTES)
        self._ranking = lru_cache(maxsize=16)(self._rank)

    def fit(
        self,
        params: Mapping[str, Any],
        rows: NDArray[np.int64],
        *,
        fit: str,
        n_rounds: int,
        validation: NDArray[np.int64] | None = None,
        patience: int | None = None,
    ) -> tuple[FittedBooster, Prepared]:
        """Fit one booster on some of the outer training rows.

        Parameters
        ----------
        params : mapping
            A trial's parameters, recipe and booster's own together.
        rows : ndarray of int64
            The rows to learn from.
        fit : str
            Name of the fit in the ledger.
        n_rounds : int
            Boosting rounds, the most where ``validation`` stops earlier.
        validation : ndarray of int64, optional
            Rows whose log-loss is followed.
        patience : int, optional
            Rounds without improvement before stopping.

        Returns
        -------
        tuple of FittedBooster and Prepared
            The booster, and the training set it saw.
        """
        self._record(params, rows, fit, validation)
        return self._fit(params, rows, fit, n_rounds, validation, patience)

    def record_trial(self, params: Mapping[str, Any], folds: Sequence[Fold]) -> None:
        """Write down what a trial touches, whether it runs now or ran before a kill.

        Parameters
        ----------
        params : mapping
            The trial's parameters.
        folds : sequence of Fold
            The inner folds that it ran on.
        """
        for inner in folds:
            fit = f"inner {inner.number}"
            self.ledger.record_split(fit, inner)
            self._record(params, self._mine(inner.train), fit, self._mine(inner.test))

    def predict(
        self,
        booster: FittedBooster,
        prepared: Prepared,
        rows: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Predict some rows.

        Parameters
        ----------
        booster : FittedBooster
            From :meth:`fit`.
        prepared : Prepared
            From the same call.
        rows : ndarray of int64
            Row positions.

        Returns
        -------
        ndarray of float64, shape (len(rows), n_classes)
            Class probabilities.
        """
        X = self.features.take(rows, prepared.columns)
        return booster.predict_proba(X, names=prepared.names)

    def out_of_fold(
        self,
        params: Mapping[str, Any],
        n_rounds: int,
        folds: Sequence[Fold],
        *,
        purpose: str,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Predict every outer training row by a model that did not see its group.

        A row without the modality gets the class shares of what that model learnt from.

        Parameters
        ----------
        params : mapping
            The chosen parameters.
        n_rounds : int
            The chosen rounds.
        folds : sequence of Fold
            A partition of the outer training rows.
        purpose : str
            First part of the fits' names in the ledger.

        Returns
        -------
        tuple of ndarray
            Row positions, increasing, and their class probabilities.
        """
        probas = []
        for inner in folds:
            fit = f"{purpose} {inner.number}"
            self.ledger.record_split(fit, inner)
            booster, prepared = self.fit(
                params, self._mine(inner.train), fit=fit, n_rounds=n_rounds
            )
            shares = class_priors(self.labels[inner.train], self.n_classes)
            probas.append(np.tile(shares, (len(inner.test), 1)))
            here = self.features.present[inner.test]
            probas[-1][here] = self.predict(booster, prepared, inner.test[here])
        rows = np.concatenate([inner.test for inner in folds])
        order = np.argsort(rows)
        return rows[order], np.concatenate(probas)[order]

    def evaluate(
        self,
        params: Mapping[str, Any],
        folds: Sequence[Fold],
        *,
        metric: str,
        max_rounds: int,
        patience: int,
    ) -> Iterator[tuple[Checkpoint, int]]:
        """Score parameters on the inner folds, one after the other.

        Parameters
        ----------
        params : mapping
            A trial's parameters.
        folds : sequence of Fold
            A partition of the outer training rows.
        metric : str
            Key of :data:`toolkit.validation.METRICS`.
        max_rounds : int
            Most boosting rounds of a fit.
        patience : int
            Rounds without a better validation log-loss before a fit stops.

        Yields
        ------
        tuple of Checkpoint and int
            After each fold, the score over the validation rows so far, and the rounds at
            which the mean validation curve so far is lowest. Whoever stops asking saves the
            folds that are left.
        """
        curves, paths, truths = [], [], []
        for inner in folds:
            self.record_trial(params, [inner])
            held_back = self._mine(inner.test)
            path = RoundPath()
            booster, _ = self._fit(
                params,
                self._mine(inner.train),
                f"inner {inner.number}",
                max_rounds,
                held_back,
                patience,
                on_round=path.follow,
            )
            curves.append(booster.curve)
            paths.append(path)
            truths.append(self.labels[held_back])
            n_rounds = best_rounds(curves)
            proba = np.concatenate([path.after(n_rounds) for path in paths])
            yield take_checkpoint(metric, np.concatenate(truths), proba), n_rounds

    def _record(
        self,
        params: Mapping[str, Any],
        rows: NDArray[np.int64],
        fit: str,
        validation: NDArray[np.int64] | None,
    ) -> None:
        recipe, _ = split_params(params)
        self.ledger.record("bins", "bin edges", self.outer_rows)
        if recipe.screening != "none":
            self.ledger.record(fit, "screen", rows)
        if recipe.imbalance in RESAMPLING:
            self.ledger.record(fit, "resample parent", rows)
        self.ledger.record(fit, "train", rows)
        if validation is not None:
            self.ledger.record(fit, "early stop", validation)

    def _fit(  # noqa: PLR0917  (private: its callers are above)
        self,
        params: Mapping[str, Any],
        rows: NDArray[np.int64],
        fit: str,
        n_rounds: int,
        validation: NDArray[np.int64] | None,
        patience: int | None,
        on_round: Callable[[NDArray[np.float64]], None] | None = None,
    ) -> tuple[FittedBooster, Prepared]:
        recipe, own = split_params(params)
        prepared, held_back = self._prepared(recipe, fit, rows, validation)
        booster = fit_booster(
            prepared.data,
            own,
            n_rounds=n_rounds,
            seed=derive_seed(self.seed, "booster"),
            validation=held_back,
            patience=patience,
            on_round=on_round,
            n_threads=self.n_threads,
        )
        return booster, prepared

    def _mine(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows[self.features.present[rows]]

    def _prepared(
        self,
        recipe: Recipe,
        fit: str,
        rows: NDArray[np.int64],
        validation: NDArray[np.int64] | None,
    ) -> tuple[Prepared, TrainingData | None]:
        """Give a training set and the held-back rows in its bins, made once for all trials."""

        def make() -> tuple[tuple[Prepared, TrainingData | None], int]:
            prepared = self._prepare(recipe, fit, rows)
            if validation is None:
                return (prepared, None), binned_bytes(prepared.data)
            reference, places = self._outer_bins(recipe, validation)
            held_back = self._bin(
                recipe, validation, prepared.columns, reference or prepared.data, places
            )
            return (prepared, held_back), binned_bytes(prepared.data, held_back)

        held_back_rows = None if validation is None else validation.tobytes()
        key = (recipe, fit, rows.tobytes(), held_back_rows)
        pair: tuple[Prepared, TrainingData | None] = self._binned.get(key, make)
        return pair

    def _prepare(self, recipe: Recipe, fit: str, rows: NDArray[np.int64]) -> Prepared:
        reference, places = self._outer_bins(recipe, rows)
        ranking = None
        if reference is None:
            method = parse_screening(recipe.screening)[0]
            ranking = self._ranking(recipe.statistics, method, rows.tobytes())
        return prepare(
            recipe,
            self.features,
            rows,
            self.labels,
            n_classes=self.n_classes,
            seed=derive_seed(self.seed, "balance", fit),
            reference=reference,
            positions=places,
            ranking=ranking,
            device=self.device,
        )

    def _outer_bins(
        self, recipe: Recipe, rows: NDArray[np.int64]
    ) -> tuple[TrainingData | None, NDArray[np.int64] | None]:
        """Give the binned outer rows, None under a screen, and where rows stand among them."""
        if is_screened(recipe, self.features):
            return None, None
        places = np.searchsorted(self.outer_rows, rows)
        found = np.array_equal(self.outer_rows.take(places, mode="clip"), rows)
        return self._reference(recipe), places if found else None

    def _reference(self, recipe: Recipe) -> TrainingData:
        """Bin the outer training rows: their edges serve every fit that sees all columns."""

        def make() -> tuple[TrainingData, int]:
            columns = self.features.presets[recipe.statistics]
            data = self._bin(recipe, self.outer_rows, columns, None)
            return data, binned_bytes(data)

        key = (recipe.booster, recipe.statistics, recipe.max_bin)
        data: TrainingData = self._binned.get(key, make)
        return data

    def _bin(
        self,
        recipe: Recipe,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        reference: TrainingData | None,
        places: NDArray[np.int64] | None = None,
    ) -> TrainingData:
        return make_training_data(
            recipe.booster,
            self.features.take(rows, columns),
            self.labels[rows],
            n_classes=self.n_classes,
            names=tuple(self.features.names[column] for column in columns),
            max_bin=recipe.max_bin,
            reference=reference,
            positions=places,
            device=self.device,
        )

    def _rank(self, statistics: str, method: str, packed_rows: bytes) -> NDArray[np.int64]:
        rows = np.frombuffer(packed_rows, dtype=np.int64)
        X = self.features.take(rows, self.features.presets[statistics])
        return rank_features(X, self.labels[rows], method)
