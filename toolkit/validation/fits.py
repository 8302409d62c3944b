"""Fits inside one outer fold: features, inner fits, and a bound of their memory.

:class:`InnerFits` holds the binned rows, prepared training sets and ledger that all fits of a
unit share, so that a trial costs its boosting rounds and little else.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.models import (
    RESAMPLING,
    Features,
    FittedBooster,
    class_priors,
    parse_screening,
)
from toolkit.models.balancing import Balanced
from toolkit.models.boosters import fit_booster, make_training_data
from toolkit.models.libraries import TrainingData
from toolkit.models.preparation import (
    Prepared,
    Recipe,
    balance_rows,
    prepare,
    rank_columns,
    split_params,
)
from toolkit.models.tfidf import TextColumns
from toolkit.pooling import PRESETS, FeatureTable
from toolkit.validation.folds import Fold, derive_seed
from toolkit.validation.ledger import Ledger
from toolkit.validation.racing import IntermediateValue


def _best_rounds(curves: Sequence[NDArray[np.float64]]) -> int:
    """Find the number of rounds at which the mean validation curve is lowest."""
    length = max(len(curve) for curve in curves)
    padded = [np.pad(curve, (0, length - len(curve)), mode="edge") for curve in curves]
    return int(np.argmin(np.mean(padded, axis=0))) + 1


#: Training rows up to which trials have four times the learning rate, and from which they have
#: twice as much (studies/benchmarks). The factors between are interpolated, so that twice the
#: rows take little more than twice the time.
COARSE_ROWS: Final = (1_500, 5_000)
_RATES: Final = {"lightgbm": "learning_rate", "xgboost": "eta"}


def _find_step(n_rows: int) -> float:
    """Find the factor between the learning rates of a trial and of its model."""
    return round(float(2 ** np.interp(np.log(n_rows), np.log(COARSE_ROWS), [2, 1])), 2)


def _coarsen(params: Mapping[str, Any], step: float) -> tuple[Mapping[str, Any], float]:
    """Multiply the learning rate by a step; count the rounds that one round then replaces."""
    name = _RATES[params["booster"]]
    # A rate above 1 would step beyond the optimum of a leaf.
    step = min(step, max(1, 1 / params.get(name, 1)))
    return (params if step == 1 else {**params, name: step * params[name]}), step


#: Pooled columns of a modality above which its fits are screened, or a smaller preset is taken:
#: 18 statistics of 1,024 dimensions stay whole, those of 2,048 do not.
MOST_COLUMNS: Final = 20_000
#: The screen of very wide modalities.
WIDE_SCREEN: Final = "ftest-5000"

_SMALLER: Final = ("rich", "basic", "minimal")


def make_features(
    tables: Sequence[FeatureTable],
    presets: Sequence[str],
    *,
    most_columns: int | None = None,
    screen_above: int | None = None,
) -> Features:
    """Lay feature tables side by side for the models.

    Parameters
    ----------
    tables : sequence of FeatureTable
        At least one, over the same utterances.
    presets : sequence of str
        Candidate statistics presets (or comma-separated statistics).
    most_columns : int, optional
        Columns of a table above which a smaller preset is taken. Statistics named one by
        one are never reduced.
    screen_above : int, optional
        Columns of a table above which fits that would take all columns are screened instead.

    Returns
    -------
    Features
        One column set per preset; an utterance is present where any table has it.
        ``reduced`` lists the smaller presets that were taken, per modality.
    """
    screen = WIDE_SCREEN if find_wide(tables, presets, screen_above) else "none"
    taken = [make_presets(table, presets, most_columns) for table in tables]
    reduced = {
        table.modality: found for table, (_, found) in zip(tables, taken, strict=True) if found
    }
    present = np.any([table.present for table in tables], axis=0)
    if len(tables) == 1:
        table, (columns, _) = tables[0], taken[0]
        texts = tuple(_list_texts(table, 0))
        return Features(table.values, table.names, present, columns, reduced, texts, screen)
    names: list[str] = []
    values, parts = [], defaultdict(list)
    fitted: list[TextColumns] = []
    for table, (columns, _) in zip(tables, taken, strict=True):
        # Tables side by side are a copy in memory, so columns of no preset are left out.
        kept = np.unique(np.concatenate(list(columns.values())))
        values.append(table.values if len(kept) == len(table.names) else table.values[:, kept])
        for preset, own in columns.items():
            parts[preset].append(len(names) + np.searchsorted(kept, own))
        fitted += _list_texts(table, len(names))
        names += [table.names[column] for column in kept]
    joined = {preset: np.concatenate(each) for preset, each in parts.items()}
    texts = tuple(fitted)
    return Features(np.hstack(values), tuple(names), present, joined, reduced, texts, screen)


def find_wide(
    tables: Sequence[FeatureTable], presets: Sequence[str], screen_above: int | None
) -> dict[str, int]:
    """Find the modalities that are too wide for fits of all columns, by their widest preset.

    Arguments are those of :func:`make_features`.
    """
    widths = {t.modality: max(len(t.select(name)) for name in presets) for t in tables}
    most = np.inf if screen_above is None else screen_above
    return {name: width for name, width in widths.items() if width > most}


def _list_texts(table: FeatureTable, start: int) -> list[TextColumns]:
    """Describe columns that are fitted to transcripts, from a position on; none elsewhere."""
    columns = TextColumns(table.modality, start, len(table.names), table.texts)
    return [columns] if table.texts else []


def make_presets(
    table: FeatureTable, presets: Sequence[str], most_columns: int | None
) -> tuple[dict[str, NDArray[np.int64]], dict[str, Any]]:
    """Choose a table's columns for each preset, and list where a smaller preset replaces it.

    Returns preset to columns, and replaced preset to the smaller one and numbers of columns.
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
            n_kept = len(columns[preset])
            reduced[preset] = {"statistics": stand_in, "n_columns": n_kept, "n_asked": n_asked}
    return columns, reduced


def _smaller_preset(table: FeatureTable, n_asked: int, most_columns: int) -> str | None:
    """Find the largest preset that the table holds and the limit allows, else the smallest."""
    held = [name for name in _SMALLER if set(PRESETS[name]) <= set(table.statistics)]
    smaller = [name for name in held if len(PRESETS[name]) * table.n_dims < n_asked]
    fitting = [name for name in smaller if len(PRESETS[name]) * table.n_dims <= most_columns]
    return next(iter(fitting or smaller[-1:]), None)


# Bytes of binned rows that a worker keeps for later trials.
_CACHE_BYTES: Final = 2**30
# A worker with every library imported and nothing to do.
_IDLE: Final = 250 * 2**20
# Bytes per value of binned rows: XGBoost keeps them by rows and by columns.
_BINNED: Final = {"lightgbm": 1, "xgboost": 3}
# A histogram holds two float64 numbers per bin, for the most leaves and bins of the built-in
# spaces.
_HISTOGRAMS: Final = 16 * 64 * 24
# Float32 rows, their standardised copy for a linear part, and masks of both; with resampling,
# rows once more with the new ones, and in float64 for the search of neighbours.
_ROWS, _ROWS_RESAMPLED = 11, 12
# The same rows and their standardised copy, beside a temporary one.
_LOGISTIC: Final = 4 + 4 + 4


class _SizedCache:
    """Keep the last results up to `n_bytes` in all, and the very last however large."""

    def __init__(self, n_bytes: int) -> None:
        self._most = n_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """Look a result up, or make it together with its size in bytes."""
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > 1 and self.n_bytes > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][0]

    @property
    def n_bytes(self) -> int:
        """Size of all that is kept."""
        return sum(size for _, size in self._kept.values())


def _binned_bytes(*data: TrainingData) -> int:
    return sum(_BINNED[each.kind] * len(each.labels) * len(each.names) for each in data)


def estimate_memory(
    n_rows: int,
    n_columns: int,
    *,
    side_by_side: int = 0,
    rounds: int = 0,
    resampled: bool = True,
    logistic: bool = False,
) -> int:
    """Bound the bytes of memory that one unit takes at a time.

    - n_columns: Columns of the widest candidate preset.
    - side_by_side: Columns of the tables that early fusion copies side by side into memory.
    - rounds: Boosting rounds times classes, whose probabilities a trial keeps for every row.
    - resampled: Whether training rows may be resampled.
    - logistic: Whether the unit is a logistic regression.
    """
    table = 4 * n_rows * side_by_side
    values = n_rows * n_columns
    if logistic:
        return _IDLE + table + _LOGISTIC * values
    rows = (_ROWS_RESAMPLED if resampled else _ROWS) * values
    # The cache may exceed its bound by its last entry.
    return _IDLE + table + rows + 4 * n_rows * rounds + _CACHE_BYTES + _HISTOGRAMS * n_columns


@dataclass(eq=False)
class InnerFits:
    """Fit boosters inside one outer fold, and keep their training sets for later trials.

    - features, labels: Of all utterances.
    - outer_rows: The outer fold's training rows that have the modality, or a sample of them.
    - prefix: Of the names of its fits in the ledger.
    - bins: Fits of the same rows under other labels, whose bins of all columns are used.
    """

    features: Features
    labels: NDArray[np.int64]
    outer_rows: NDArray[np.int64]
    _: KW_ONLY
    n_classes: int
    ledger: Ledger
    seed: int
    n_threads: int = 1
    device: str = "cpu"
    prefix: str = ""
    bins: "InnerFits | None" = None

    def __post_init__(self) -> None:
        self._ranking = lru_cache(maxsize=16)(self._rank)
        self.forget()

    def forget(self) -> None:
        """Free the training sets that were kept for later trials."""
        # A training set is binned once and serves every trial that asks for the same one.
        self._binned = _SizedCache(_CACHE_BYTES)

    def fit(
        self,
        params: Mapping[str, Any],
        rows: NDArray[np.int64],
        *,
        fit: str,
        n_rounds: int,
        validation: NDArray[np.int64] | None = None,
        patience: int | None = None,
        on_round: Callable[[NDArray[np.float64]], None] | None = None,
    ) -> tuple[FittedBooster, Prepared]:
        """Fit one booster on some of the outer training rows, and return the training set too.

        `params` holds recipe and booster parameters together; `fit` is the name in the ledger;
        `patience` stops the rounds by the log-loss of the `validation` rows.
        """
        self._record(params, rows, fit, validation)
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
        texts = {each.modality: each.model for each in prepared.features.texts if each.model}
        return replace(booster, texts=texts) if texts else booster, prepared

    def fit_coarse(
        self, params: Mapping[str, Any], rows: NDArray[np.int64], *, fit: str, n_rounds: int
    ) -> tuple[FittedBooster, Prepared]:
        """Fit in half the time of :meth:`fit`: twice the learning rate, half of the rounds."""
        coarse, step = _coarsen(params, 2)
        return self.fit(coarse, rows, fit=fit, n_rounds=ceil(n_rounds / step))

    def balance(
        self, params: Mapping[str, Any], rows: NDArray[np.int64], *, fit: str, made_as: str
    ) -> tuple[NDArray[np.int64], Balanced]:
        """Screen and balance training rows as a fit of trees named `made_as` was given them.

        `fit` is the name in the ledger. Returns the columns, and the rows of these columns.
        """
        recipe, _ = split_params(params)
        self._record_training(recipe, rows, fit)
        return balance_rows(
            recipe,
            self.features.fit(rows),
            rows,
            self.labels,
            seed=derive_seed(self.seed, "balance", made_as),
            ranking=self._find_ranking(recipe, rows),
        )

    def record_trial(self, params: Mapping[str, Any], folds: Sequence[Fold]) -> None:
        """Record the rows of a trial that ran before on inner folds."""
        for inner in folds:
            fit = f"{self.prefix}inner {inner.number}"
            self.ledger.record_split(fit, inner)
            self._record(params, self._present(inner.train), fit, self._present(inner.test))

    def predict(
        self, booster: FittedBooster, prepared: Prepared, rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Predict class probabilities of rows, by a booster and training set of :meth:`fit`."""
        X = prepared.features.take(rows, prepared.columns)
        return booster.predict_proba(X, names=prepared.data.names)

    def predict_or_priors(
        self,
        booster: FittedBooster,
        prepared: Prepared,
        rows: NDArray[np.int64],
        train: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Predict rows; one without the modality gets the class priors of the training rows."""
        predicted = self.predict(booster, prepared, self._present(rows))
        priors = class_priors(self.labels[train], self.n_classes)
        return self.features.complete(rows, predicted, priors)

    def predict_parts(
        self,
        booster: FittedBooster,
        prepared: Prepared,
        rows: NDArray[np.int64],
        train: NDArray[np.int64],
    ) -> dict[str, NDArray[np.float64]]:
        """Predict rows as :meth:`predict_or_priors` does, by trees and linear part alone."""
        X = prepared.features.take(self._present(rows), prepared.columns)
        priors = class_priors(self.labels[train], self.n_classes)
        return {
            name: self.features.complete(rows, proba, priors)
            for name, proba in booster.predict_parts(X).items()
        }

    def out_of_fold(
        self, params: Mapping[str, Any], n_rounds: int, folds: Sequence[Fold], *, purpose: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Predict every outer training row by a model that did not see its group.

        `folds` partition the outer training rows; `purpose` starts the fits' names in the
        ledger. Returns row positions, increasing, and their class probabilities.
        """
        probas = []
        for inner in folds:
            fit = f"{purpose} {inner.number}"
            self.ledger.record_split(fit, inner)
            booster, prepared = self.fit_coarse(
                params, self._present(inner.train), fit=fit, n_rounds=n_rounds
            )
            probas.append(self.predict_or_priors(booster, prepared, inner.test, inner.train))
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
    ) -> Iterator[tuple[IntermediateValue, int]]:
        """Score parameters on the inner folds, one after the other.

        The fits are coarse: a step multiplies their learning rate and divides their rounds and
        their patience. Each fold yields the score of all validation rows so far, and the
        rounds of lowest mean validation loss at the given learning rate.
        """
        coarse, step = _coarsen(params, _find_step(len(self.outer_rows)))
        curves, paths, truths = [], [], []
        for inner in folds:
            fit = f"{self.prefix}inner {inner.number}"
            self.ledger.record_split(fit, inner)
            held_back = self._present(inner.test)
            path: list[NDArray[np.float32]] = []

            def keep(proba: NDArray[np.float64], to: list[NDArray[np.float32]] = path) -> None:
                to.append(proba.astype(np.float32))  # half of the memory of the booster's own

            booster, _ = self.fit(
                coarse,
                self._present(inner.train),
                fit=fit,
                n_rounds=ceil(max_rounds / step),
                validation=held_back,
                patience=ceil(patience / step),
                on_round=keep,
            )
            curves.append(booster.curve)
            paths.append(path)
            truths.append(self.labels[held_back])
            n_rounds = _best_rounds(curves)
            # A shorter path stays at its end.
            proba = np.concatenate([path[:n_rounds][-1] for path in paths]).astype(np.float64)
            value = IntermediateValue.compute(metric, np.concatenate(truths), proba)
            yield value, min(round(step * n_rounds), max_rounds)

    def _record(
        self,
        params: Mapping[str, Any],
        rows: NDArray[np.int64],
        fit: str,
        validation: NDArray[np.int64] | None,
    ) -> None:
        recipe, _ = split_params(params)
        self._record_training(recipe, rows, fit)
        # Bin edges come from the outer training rows, never from rows that are predicted.
        shared = (f"{self.prefix}bins", self.outer_rows)
        name, binned = (fit, rows) if recipe.bins_alone(self.features) else shared
        self.ledger.record(name, "bin edges", binned)
        if validation is not None:
            self.ledger.record(fit, "early stop", validation)

    def _record_training(self, recipe: Recipe, rows: NDArray[np.int64], fit: str) -> None:
        if self.features.texts:
            self.ledger.record(fit, "vocabulary", rows)
        if recipe.screening != "none":
            self.ledger.record(fit, "screen", rows)
        if recipe.imbalance in RESAMPLING:
            self.ledger.record(fit, "resample parent", rows)
        self.ledger.record(fit, "train", rows)

    def _present(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows[self.features.present[rows]]

    def _prepared(
        self,
        recipe: Recipe,
        fit: str,
        rows: NDArray[np.int64],
        validation: NDArray[np.int64] | None,
    ) -> tuple[Prepared, TrainingData | None]:
        """Return a training set and held-back rows in its bins, made once for all trials."""

        def make() -> tuple[tuple[Prepared, TrainingData | None], int]:
            prepared = self._prepare(recipe, fit, rows)
            if validation is None:
                return (prepared, None), _binned_bytes(prepared.data)
            reference, index = self._outer_bins(recipe, validation)
            held_back = self._bin(
                recipe,
                validation,
                prepared.columns,
                reference or prepared.data,
                index,
                features=prepared.features,
            )
            return (prepared, held_back), _binned_bytes(prepared.data, held_back)

        # The seed of the balancing is the fit's: equal rows in another fit differ.
        held_back_rows = None if validation is None else validation.tobytes()
        key = (recipe, fit, rows.tobytes(), held_back_rows)
        pair: tuple[Prepared, TrainingData | None] = self._binned.get(key, make)
        return pair

    def _prepare(self, recipe: Recipe, fit: str, rows: NDArray[np.int64]) -> Prepared:
        reference, index = self._outer_bins(recipe, rows)
        return prepare(
            recipe,
            self.features,
            rows,
            self.labels,
            n_classes=self.n_classes,
            seed=derive_seed(self.seed, "balance", fit),
            reference=reference,
            positions=index,
            ranking=self._find_ranking(recipe, rows),
            device=self.device,
        )

    def _find_ranking(
        self, recipe: Recipe, rows: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        """Rank the columns on a fit's rows, once for all trials; None without a screen."""
        if not recipe.screens(self.features):
            return None
        method = parse_screening(recipe.screening)[0]
        ranking: NDArray[np.int64] = self._ranking(recipe.statistics, method, rows.tobytes())
        return ranking

    def _outer_bins(
        self, recipe: Recipe, rows: NDArray[np.int64]
    ) -> tuple[TrainingData | None, NDArray[np.int64] | None]:
        """Return the binned outer rows and the index of rows in them; None under own bins."""
        if recipe.bins_alone(self.features):
            return None, None
        index = np.searchsorted(self.outer_rows, rows)
        # Rows outside the outer training rows were not binned with them.
        found = np.array_equal(self.outer_rows.take(index, mode="clip"), rows)
        return self._reference(recipe), index if found else None

    def _reference(self, recipe: Recipe) -> TrainingData:
        """Bin the outer training rows: their edges serve every fit over all columns."""

        def make() -> tuple[TrainingData, int]:
            columns = self.features.presets[recipe.statistics]
            data = self._bin(recipe, self.outer_rows, columns, None)
            return data, _binned_bytes(data)

        if self.bins is not None:  # bin edges depend on no label
            return self.bins._reference(recipe)  # noqa: SLF001  (of this class)
        key = (recipe.booster, recipe.statistics, recipe.max_bin)
        data: TrainingData = self._binned.get(key, make)
        return data

    def _bin(
        self,
        recipe: Recipe,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        reference: TrainingData | None,
        index: NDArray[np.int64] | None = None,
        *,
        features: Features | None = None,
    ) -> TrainingData:
        features = features or self.features
        return make_training_data(
            recipe.booster,
            features.take(rows, columns),
            self.labels[rows],
            n_classes=self.n_classes,
            names=tuple(features.names[column] for column in columns),
            max_bin=recipe.max_bin,
            reference=reference,
            positions=index,
            device=self.device,
        )

    def _rank(self, statistics: str, method: str, packed_rows: bytes) -> NDArray[np.int64]:
        """Rank the columns on a fit's rows, given as bytes for the cache."""
        rows = np.frombuffer(packed_rows, dtype=np.int64)
        fitted = self.features.fit(rows)
        return rank_columns(fitted, statistics, method, rows, self.labels)
