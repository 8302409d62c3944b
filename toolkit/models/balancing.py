"""Balancing of unequal classes, for training rows and no others.

A synthetic row lies between two rows of one class that lack the same features, and lacks them
too. Neighbours are searched among such rows, on features divided by their standard deviation.
The record holds every departure from the strategy asked for.

References
----------
Chawla et al. (2002), SMOTE: synthetic minority over-sampling technique, JAIR 16.
Han et al. (2005), Borderline-SMOTE, ICIC.
Batista et al. (2003), Balancing training data for automated annotation of keywords: a case
study (SMOTE, then Tomek links removed), WOB.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from imblearn.over_sampling import SMOTE, BorderlineSMOTE, RandomOverSampler
from imblearn.under_sampling import TomekLinks
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_sample_weight

from toolkit.models.checks import check_labels, check_matrix
from toolkit.models.linear import standard_deviations

#: Strategies that copy, synthesise or remove training rows.
RESAMPLING: Final = ("oversample", "smote", "borderline", "smote_tomek")
#: All strategies, from doing nothing to doing most.
_IMBALANCE: Final = ("none", "weights", *RESAMPLING)

_N_NEIGHBORS: Final = 5
# Neighbours that decide whether a row is near another class.
_N_BORDER_NEIGHBORS: Final = 10


@dataclass(frozen=True, slots=True, eq=False)
class Balanced:
    """Training rows after balancing, and their origins.

    Given rows come first and keep their order; copies and synthetic rows follow.

    - weights: shape (n_out,); Row weights of mean 1, of the strategy ``weights`` only.
    - rows: shape (n_out,); The given row that a row is, kept or copied; -1 for a synthetic one.
    - origins: Class, added rows, and the given rows that they copy or lie between.
    """

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    weights: NDArray[np.float64] | None
    rows: NDArray[np.int64]
    origins: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = field(repr=False)
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class _NewRows:
    """Copies or synthetic rows of one class.

    - given: The row that each one copies, or the group of rows that they lie between.
    - n_neighbors: Neighbours searched in the group; 0 for copies.
    - fallback: Reason for another treatment than the one asked for; empty without one.
    """

    label: int
    X: NDArray[np.float32]
    given: NDArray[np.int64]
    n_neighbors: int = 0
    fallback: str = ""


def balance(X: ArrayLike, y: ArrayLike, strategy: str, *, seed: int) -> Balanced:
    """Balance the classes of training rows; X has shape (n_rows, n_features)."""
    matrix = check_matrix(X)
    labels = check_labels(y, len(matrix))
    if strategy not in _IMBALANCE:
        raise ValueError(
            f"Unknown imbalance strategy {strategy!r}; choose among {list(_IMBALANCE)}."
        )
    added: list[_NewRows] = []
    if strategy == "oversample":
        added = _oversample_copies(matrix, labels, seed)
    elif strategy in RESAMPLING:
        borderline = strategy == "borderline"
        added = _oversample_smote(matrix, labels, borderline=borderline, seed=seed)
    grown = np.vstack([matrix, *(new.X for new in added)]) if added else matrix
    y_grown = np.concatenate([labels, *(np.full(len(new.X), new.label) for new in added)])
    sources = [np.full(len(new.X), -1) if new.n_neighbors else new.given for new in added]
    rows = np.concatenate([np.arange(len(labels)), *sources])
    kept = np.arange(len(rows))
    if strategy == "smote_tomek":
        # The scales are those of the given rows, since synthetic ones would narrow them.
        kept = _rows_without_tomek_link(grown, y_grown, standard_deviations(matrix))
        grown = grown[kept]
    return Balanced(
        X=grown,
        y=y_grown[kept],
        weights=compute_sample_weight("balanced", labels) if strategy == "weights" else None,
        rows=rows[kept],
        origins=_list_origins(y_grown, rows, added, kept),
        record=_make_record(strategy, labels, y_grown[kept], added, np.delete(rows, kept)),
    )


def _list_origins(
    y: NDArray[np.int64],
    rows: NDArray[np.int64],
    added: Sequence[_NewRows],
    kept: NDArray[np.int64],
) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """List the origins of the added rows that are kept; copies of a class have one together."""
    n_given = len(y) - sum(len(new.X) for new in added)
    number = np.repeat(np.arange(-1, len(added)), [n_given, *(len(new.X) for new in added)])
    y, rows, number = y[kept], rows[kept], number[kept]
    origins = [
        (new.label, np.flatnonzero(number == k), new.given)
        for k, new in enumerate(added)
        if new.n_neighbors
    ]
    copied = (number >= 0) & (rows >= 0)
    for label in np.unique(y[copied]):
        copies = np.flatnonzero(copied & (y == label))
        origins.append((int(label), copies, np.unique(rows[copies])))
    return [origin for origin in origins if len(origin[1])]


def _oversample_copies(
    X: NDArray[np.float32], y: NDArray[np.int64], seed: int
) -> list[_NewRows]:
    """Copy rows at random until each class is as large as the largest."""
    if not _shortfalls(y):
        return []
    sampler = RandomOverSampler(random_state=_child_seed(seed))
    sampler.fit_resample(np.arange(len(y))[:, None], y)
    drawn = sampler.sample_indices_[len(y) :]
    copies = ((label, drawn[y[drawn] == label]) for label, _ in _shortfalls(y))
    return [_NewRows(label, X[rows], rows) for label, rows in copies]


def _oversample_smote(
    X: NDArray[np.float32], y: NDArray[np.int64], *, borderline: bool, seed: int
) -> list[_NewRows]:
    """Synthesise rows until each class is as large as the largest."""
    scales, patterns = standard_deviations(X), _missing_patterns(X)
    added = []
    for label, n_class in _shortfalls(y):
        for pattern, n_new in _apportion(n_class, patterns[y == label]):
            own_seed = _child_seed(seed, label, pattern)
            same = np.flatnonzero(patterns == pattern)  # rows that lack the same features
            group, other_classes = same[y[same] == label], same[y[same] != label]
            observed = np.flatnonzero(~np.isnan(X[group[0]]))
            # SMOTE needs a second row to interpolate to, and a feature to find it by.
            if len(group) < 2 or len(observed) == 0:
                drawn = np.random.default_rng(own_seed).choice(group, n_new)
                why = "fewer than two rows of the class have the same features"
                added.append(_NewRows(label, X[drawn], drawn, fallback=why))
                continue
            neighbours = np.concatenate([group, other_classes]) if borderline else group
            scaled = X[neighbours][:, observed] / scales[observed]
            made, fallback = _interpolate(
                scaled, len(group), n_new, borderline=borderline, seed=own_seed
            )
            filled = np.full((n_new, X.shape[1]), np.nan, dtype=np.float32)
            filled[:, observed] = made * scales[observed]
            added.append(_NewRows(label, filled, group, _n_neighbors(len(group)), fallback))
    return added


def _interpolate(
    scaled: NDArray[np.float64], n_group: int, n_new: int, *, borderline: bool, seed: int
) -> tuple[NDArray[np.float64], str]:
    """Interpolate in the first ``n_group`` rows; the others are rows of other classes."""
    k_neighbors = _n_neighbors(n_group)
    # Without rows of other classes there is no border to find.
    if borderline and n_group < len(scaled):
        sampler = BorderlineSMOTE(
            k_neighbors=k_neighbors,
            m_neighbors=min(_N_BORDER_NEIGHBORS, len(scaled) - 1),
            random_state=seed,
        )
        made = _resample(sampler, scaled, n_group, n_new)
        if len(made):
            return made, ""
    sampler = SMOTE(k_neighbors=k_neighbors, random_state=seed)
    # The sampler demands a second class, and does not look at its row.
    made = _resample(sampler, np.vstack([scaled[:n_group], scaled[:1]]), n_group, n_new)
    return made, "no row is near another class" if borderline else ""


def _resample(
    sampler: SMOTE, scaled: NDArray[np.float64], n_group: int, n_new: int
) -> NDArray[np.float64]:
    inside = np.arange(len(scaled)) < n_group
    sampler.set_params(sampling_strategy={1: n_group + n_new})
    grown, _ = sampler.fit_resample(scaled, inside.astype(np.int64))
    return np.asarray(grown[len(scaled) :])


def _n_neighbors(n_group: int) -> int:
    # A group smaller than its neighbourhood uses all of itself, and the record counts it.
    return min(_N_NEIGHBORS, n_group - 1)


def _rows_without_tomek_link(
    X: NDArray[np.float32], y: NDArray[np.int64], scales: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Find the rows that are in no Tomek link, among rows that lack the same features.

    A Tomek link is a pair of rows of different classes, each the other's nearest neighbour.
    """
    patterns = _missing_patterns(X)
    keep = np.ones(len(y), dtype=bool)
    for pattern in np.unique(patterns):
        alike = np.flatnonzero(patterns == pattern)
        observed = np.flatnonzero(~np.isnan(X[alike[0]]))
        if len(np.unique(y[alike])) < 2 or len(observed) == 0:
            continue
        cleaner = TomekLinks(sampling_strategy="all")
        cleaner.fit_resample(X[alike][:, observed] / scales[observed], y[alike])
        keep[np.delete(alike, cleaner.sample_indices_)] = False
    # A class that cleaning would empty keeps its rows.
    for label in np.setdiff1d(y, y[keep]):
        keep[y == label] = True
    return np.flatnonzero(keep)


def _missing_patterns(X: NDArray[np.float32]) -> NDArray[np.int64]:
    """Give each row the number of its set of missing features; shape (n_rows,)."""
    packed = np.packbits(np.isnan(X), axis=1)
    return np.unique(packed, axis=0, return_inverse=True)[1].reshape(-1)


def _shortfalls(y: NDArray[np.int64]) -> list[tuple[int, int]]:
    """List the classes below the largest, and the number of rows each one lacks."""
    counts = Counter(y.tolist())
    largest = max(counts.values(), default=0)
    return [(label, largest - n) for label, n in sorted(counts.items()) if n < largest]


def _apportion(n: int, patterns: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Divide a number among patterns by their rows; rounding goes to the largest remainders."""
    kinds, sizes = np.unique(patterns, return_counts=True)
    parts, remainders = np.divmod(n * sizes, sizes.sum())
    left = n - parts.sum()
    parts[np.argsort(-remainders, kind="stable")[:left]] += 1
    pairs = zip(kinds.tolist(), parts.tolist(), strict=True)
    return [(kind, part) for kind, part in pairs if part]


def _child_seed(seed: int, *path: int) -> int:
    return int(np.random.SeedSequence([seed, *path]).generate_state(1)[0])


def _make_record(
    strategy: str,
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    added: Sequence[_NewRows],
    removed: NDArray[np.int64],
) -> dict[str, Any]:
    """Describe the balancing in types that JSON has; groups of a class are counted together.

    ``clipped`` are groups smaller than their neighbourhood; ``removed`` are given rows.
    """
    made, copied = Counter[str](), Counter[str]()
    clipped, fallbacks = Counter[tuple[int, int]](), Counter[tuple[int, str]]()
    for new in added:
        (made if new.n_neighbors else copied)[str(new.label)] += len(new.X)
        if 0 < new.n_neighbors < _N_NEIGHBORS:
            clipped[new.label, new.n_neighbors] += 1
        if new.fallback:
            fallbacks[new.label, new.fallback] += len(new.X)
    return {
        "strategy": strategy,
        "before": _count(before),
        "after": _count(after),
        "made": dict(made),
        "copied": dict(copied),
        "clipped": [
            {"class": label, "n_neighbors": k, "groups": n}
            for (label, k), n in sorted(clipped.items())
        ],
        "fallbacks": [
            {"class": label, "rows": n, "why": why}
            for (label, why), n in sorted(fallbacks.items())
        ],
        "removed": removed[removed >= 0].tolist(),
        "removed_made": int((removed < 0).sum()),
    }


def _count(y: NDArray[np.int64]) -> dict[str, int]:
    return {str(label): n for label, n in sorted(Counter(y.tolist()).items())}
