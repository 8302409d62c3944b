"""Contributions summed up while they stream by: by modality, statistic, dimension and feature.

A row keeps its sums by modality and statistic, a few dozen numbers a class; of features and
dimensions only sums over rows are kept. So what is held does not grow with rows times
features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from toolkit.explain.contributions import contribution_blocks
from toolkit.explain.families import parse_names

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from toolkit.explain.contributions import Explainer

Key = TypeVar("Key", str, tuple[str, int])
Part = tuple[str, str]
"""Modality and statistic."""


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """Sums of the contributions of one model.

    Parameters
    ----------
    parts : tuple of (str, str)
        Modality and statistic of every part, in the order of the model's features.
    signed : ndarray of float64, shape (n_rows, n_classes, n_parts)
        Sum of the contributions to each class's margin, as they are: with ``base`` they add
        up to the margin.
    absolute : ndarray of float64, shape (n_rows, n_classes, n_parts)
        Sum of the magnitudes of contributions centred over the classes.
    base : ndarray of float64, shape (n_rows, n_classes)
        Expected margin of the model that explains the row.
    trained : ndarray of bool, shape (n_rows, n_classes)
        Classes that the model of each row was trained on; False in a row that no model
        explains.
    of_feature : mapping of str to ndarray of float64, shape (n_classes,)
        Feature to the magnitudes of its centred contributions, summed over rows; features
        that no tree uses are left out.
    of_dimension : mapping of (str, int) to ndarray of float64, shape (n_classes,)
        Modality and dimension to the magnitude of what all its statistics contribute
        together, centred, summed over rows.
    """

    parts: tuple[Part, ...]
    signed: NDArray[np.float64]
    absolute: NDArray[np.float64]
    base: NDArray[np.float64]
    trained: NDArray[np.bool_]
    of_feature: Mapping[str, NDArray[np.float64]]
    of_dimension: Mapping[tuple[str, int], NDArray[np.float64]]


def sum_contributions(explainer: Explainer, X: ArrayLike) -> Totals:
    """Explain rows and keep sums only.

    Parameters
    ----------
    explainer : Explainer
        From :func:`make_explainer`, of a model whose features are named
        ``modality__statistic__dimension``.
    X : array-like, shape (n_rows, n_features)
        Features in the order of training; NaN where missing.

    Returns
    -------
    Totals
        Of these rows.

    Notes
    -----
    Margins of a softmax are defined up to a shift common to all classes, so magnitudes are
    taken of contributions less their mean over the classes that the model was trained on.
    """
    from toolkit.explain.compiled_totals import add_totals  # noqa: PLC0415  (the compiler)
    from toolkit.jit import LANES  # noqa: PLC0415

    booster = explainer.booster
    names = parse_names([booster.names[column] for column in explainer.columns])
    everything = parse_names(booster.names)
    parts = tuple(dict.fromkeys((name.modality, name.statistic) for name in everything))
    groups = _number(((name.modality, name.statistic) for name in names), parts)
    cells = tuple(sorted({(name.modality, name.dimension) for name in names}))
    dimensions = _number(((name.modality, name.dimension) for name in names), cells)
    order = np.argsort(dimensions, kind="stable")
    trained = list(booster.classes)
    n_rows, n_trained = len(np.asarray(X)), len(trained)
    signed = np.zeros((n_rows, booster.n_classes, len(parts)))
    absolute = np.zeros_like(signed)
    of_feature = np.zeros((n_trained, len(names)))
    of_dimension = np.zeros((n_trained, len(cells)))
    for block in contribution_blocks(explainer, X):
        here = np.zeros((2, n_trained, len(parts), LANES))
        add_totals(
            block.shares.reshape(-1),
            n_trained,
            groups,
            order,
            dimensions[order],
            here[0].reshape(-1),
            here[1].reshape(-1),
            of_feature,
            of_dimension,
            np.zeros(LANES),
        )
        n_here = block.rows.stop - block.rows.start
        signed[block.rows, trained] = here[0, :, :, :n_here].transpose(2, 0, 1)
        absolute[block.rows, trained] = here[1, :, :, :n_here].transpose(2, 0, 1)
    return Totals(
        parts=parts,
        signed=signed,
        absolute=absolute,
        base=np.tile(explainer.base, (n_rows, 1)),
        trained=np.tile(np.isin(np.arange(booster.n_classes), trained), (n_rows, 1)),
        of_feature={
            str(name): _all_classes(row, trained, booster.n_classes)
            for name, row in zip(names, of_feature.T, strict=True)
        },
        of_dimension={
            cell: _all_classes(row, trained, booster.n_classes)
            for cell, row in zip(cells, of_dimension.T, strict=True)
        },
    )


def join_totals(totals: Sequence[Totals], rows: Sequence[NDArray[np.int64]], n: int) -> Totals:
    """Put the sums of several models together, each of its own rows.

    Parameters
    ----------
    totals : sequence of Totals
        One a model, for example one an outer fold.
    rows : sequence of ndarray of int64
        The positions of each one's rows in the whole.
    n : int
        Number of rows of the whole; those of no model hold 0.

    Returns
    -------
    Totals
        With every part that some model has.
    """
    parts = tuple(dict.fromkeys(part for total in totals for part in total.parts))
    n_classes = totals[0].base.shape[1]
    signed = np.zeros((n, n_classes, len(parts)))
    absolute = np.zeros_like(signed)
    base = np.zeros((n, n_classes))
    trained = np.zeros((n, n_classes), dtype=bool)
    for total, here in zip(totals, rows, strict=True):
        columns = _number(total.parts, parts)
        signed[here[:, None], :, columns] = total.signed.transpose(0, 2, 1)
        absolute[here[:, None], :, columns] = total.absolute.transpose(0, 2, 1)
        base[here] = total.base
        trained[here] = total.trained
    return Totals(
        parts,
        signed,
        absolute,
        base,
        trained,
        _add_up(total.of_feature for total in totals),
        _add_up(total.of_dimension for total in totals),
    )


def centre(contributions: NDArray[np.float64], trained: ArrayLike) -> NDArray[np.float64]:
    """Take contributions less their mean over the classes.

    Parameters
    ----------
    contributions : ndarray of float64, shape (n_rows, n_classes, ...)
        Of margins.
    trained : array-like of bool, shape (n_rows, n_classes)
        Classes that the model of each row was trained on; the others stay 0.

    Returns
    -------
    ndarray of float64, shape (n_rows, n_classes, ...)
        They sum to 0 over the classes.
    """
    mask = np.asarray(trained, dtype=np.float64)
    mask = mask.reshape(*mask.shape, *[1] * (contributions.ndim - 2))
    mean = (contributions * mask).sum(axis=1, keepdims=True)
    mean /= np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.asarray((contributions - mean) * mask)


def _number(keys: Iterable[Hashable], known: Sequence[Hashable]) -> NDArray[np.int64]:
    place = {key: position for position, key in enumerate(known)}
    return np.array([place[key] for key in keys], dtype=np.int64)


def _all_classes(
    row: NDArray[np.float64], trained: list[int], n_classes: int
) -> NDArray[np.float64]:
    full = np.zeros(n_classes)
    full[trained] = row
    return full


def _add_up(tables: Iterable[Mapping[Key, NDArray[np.float64]]]) -> dict[Key, Any]:
    sums: dict[Key, NDArray[np.float64]] = {}
    for table in tables:
        for key, values in table.items():
            sums[key] = sums[key] + values if key in sums else values
    return {key: sums[key] for key in sorted(sums)}
