"""Exact path-dependent TreeSHAP of held-out rows, streamed in blocks.

The fast path reads the trees once (:mod:`toolkit.explain.trees`) and runs compiled passes over
blocks of rows (:mod:`toolkit.explain.compiled`). Where the trees hold something that only
their library explains, the booster's own contributions take its place, in the same blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.explain.trees import Forest, UnsupportedTreeError, parse_forest
from toolkit.explain.walks import Block, Walk, make_walk, walk_blocks
from toolkit.models.checks import check_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from toolkit.models import FittedBooster

TOLERANCES: Final = {"lightgbm": 1e-10, "xgboost": 1e-5}
"""How far contributions may be from the booster's own, in units of max(1, |margin|) for
XGBoost, whose own are summed in float32."""

N_CHECKED: Final = 5
"""Rows of each model that are compared with the booster's own contributions."""


class ExplanationError(RuntimeError):
    """Contributions are not what the booster itself says: a defect."""


@dataclass(frozen=True, slots=True, eq=False)
class Explainer:
    """What is needed to explain any row by one booster.

    Parameters
    ----------
    booster : FittedBooster
        The model.
    walk : Walk or None
        Its trees; None where the booster itself has to explain.
    forest : Forest or None
        The same trees, node by node.
    columns : ndarray of int64, shape (n_used,)
        The features that contributions are given of: those that some tree splits on, or all
        where the booster explains. All others contribute 0.
    base : ndarray of float64, shape (n_classes,)
        The margin expected of no row in particular; 0 for a class without training rows.
    reason : str
        Why the booster itself explains; empty where the fast path does.
    """

    booster: FittedBooster
    walk: Walk | None
    forest: Forest | None
    columns: NDArray[np.int64]
    base: NDArray[np.float64]
    reason: str = field(default="")


def make_explainer(booster: FittedBooster) -> Explainer:
    """Read the trees of a booster, once for all rows.

    Parameters
    ----------
    booster : FittedBooster
        LightGBM or XGBoost.

    Returns
    -------
    Explainer
        For :func:`explain_rows` and :func:`contribution_blocks`.
    """
    base = np.zeros(booster.n_classes)
    trained = list(booster.classes)
    try:
        forest = parse_forest(booster)
    except UnsupportedTreeError as why:
        nothing = np.full((1, len(booster.names)), np.nan, dtype=np.float32)
        base[trained] = booster.contributions(nothing)[0, trained, -1]
        everything = np.arange(len(booster.names))
        return Explainer(booster, None, None, everything, base, str(why))
    walk = make_walk(forest)
    base[trained] = forest.intercept + np.bincount(
        forest.classes, walk.expected, minlength=len(trained)
    )
    return Explainer(booster, walk, forest, walk.columns, base)


def contribution_blocks(explainer: Explainer, X: ArrayLike) -> Iterator[Block]:
    """Explain rows block by block, so that no (n, features, classes) array is ever held.

    Parameters
    ----------
    explainer : Explainer
        From :func:`make_explainer`.
    X : array-like, shape (n_rows, n_features)
        Features in the order of training; NaN where missing.

    Returns
    -------
    iterator of Block
        In the order of the rows. Contributions are to margins, of the features in
        ``explainer.columns`` and the classes that the booster was trained on.
    """
    matrix = check_matrix(X, n_features=len(explainer.booster.names))
    if explainer.walk is None or explainer.forest is None:
        return _booster_blocks(explainer, matrix)
    return walk_blocks(explainer.forest, explainer.walk, matrix, len(explainer.columns))


def _booster_blocks(explainer: Explainer, matrix: NDArray[np.float32]) -> Iterator[Block]:
    from toolkit.jit import LANES as lanes  # noqa: N811, PLC0415

    booster = explainer.booster
    out = np.zeros((len(booster.classes), len(booster.names), lanes))
    for start in range(0, len(matrix), lanes):
        rows = slice(start, min(start + lanes, len(matrix)))
        shares = booster.contributions(matrix[rows])[:, list(booster.classes), :-1]
        out[:] = 0
        out[:, :, : len(shares)] = shares.transpose(1, 2, 0)
        yield Block(rows, out)


def explain_rows(explainer: Explainer, X: ArrayLike) -> NDArray[np.float64]:
    """Give the contributions of every feature as one array; for few rows or few features.

    Parameters
    ----------
    X : array-like, shape (n_rows, n_features)
        Features in the order of training; NaN where missing.

    Returns
    -------
    ndarray of float64, shape (n_rows, n_classes, n_features + 1)
        As :meth:`FittedBooster.contributions` gives them: the last column is the expected
        margin, a class without training rows has 0 everywhere.
    """
    booster = explainer.booster
    matrix = check_matrix(X, n_features=len(booster.names))
    shares = np.zeros((len(matrix), booster.n_classes, len(booster.names) + 1))
    fill_contributions(explainer, matrix, shares[:, :, :-1])
    shares[:, :, -1] = explainer.base
    return shares


def fill_contributions(explainer: Explainer, X: ArrayLike, out: NDArray[Any]) -> None:
    """Write the contributions of every feature into an array, which may be on disk.

    Parameters
    ----------
    X : array-like, shape (n_rows, n_features)
        Features in the order of training; NaN where missing.
    out : ndarray of shape (n_rows, n_classes, n_features)
        Where they go, holding 0; of any type of floats, memory-mapped or not.
    """
    trained = np.array(explainer.booster.classes)
    for block in contribution_blocks(explainer, X):
        shares = block.shares[:, :, : block.rows.stop - block.rows.start].transpose(2, 0, 1)
        out[block.rows][np.ix_(np.arange(len(shares)), trained, explainer.columns)] = shares


def check_explainer(explainer: Explainer, X: ArrayLike) -> float:
    """Compare contributions of a few rows with the booster's own, and sums with margins.

    Adding up to the margin alone proves nothing: contributions that forget to merge the
    conditions on one feature add up as well.

    Parameters
    ----------
    explainer : Explainer
        From :func:`make_explainer`.
    X : array-like, shape (n_rows, n_features)
        Rows to explain; up to five, evenly spaced, are compared.

    Returns
    -------
    float
        The largest difference.

    Raises
    ------
    ExplanationError
        If it exceeds the tolerance of the library.
    """
    booster = explainer.booster
    matrix = check_matrix(X, n_features=len(booster.names))
    rows = np.unique(np.linspace(0, len(matrix) - 1, N_CHECKED).astype(np.int64))
    if len(matrix) == 0:
        return 0.0
    ours = explain_rows(explainer, matrix[rows])
    theirs = booster.contributions(matrix[rows])
    margins = theirs.sum(axis=2, keepdims=True)
    allowed = np.full_like(margins, TOLERANCES[booster.kind])
    if booster.kind == "xgboost":
        allowed *= np.maximum(1, np.abs(margins))
    gaps = np.abs(ours - theirs)
    _refuse(gaps > allowed, gaps, booster, "the booster's own contributions")
    sums = np.abs(ours.sum(axis=2, keepdims=True) - margins)
    n_features = len(booster.names) + 1
    _refuse(sums > allowed * np.sqrt(n_features), sums, booster, "the margin, added up")
    trained = list(booster.classes)
    odds = np.exp(ours.sum(axis=2)[:, trained])
    proba = booster.predict_proba(matrix[rows])[:, trained]
    off = np.abs(odds / odds.sum(axis=1, keepdims=True) - proba)
    _refuse(off > TOLERANCES[booster.kind], off, booster, "the predicted probabilities")
    return float(gaps.max())


def _refuse(
    wrong: NDArray[np.bool_], gaps: NDArray[np.float64], booster: FittedBooster, what: str
) -> None:
    if wrong.any():
        row, *place = np.argwhere(wrong)[0].tolist()
        raise ExplanationError(
            f"Contributions of the {booster.kind} model differ by {gaps[wrong].max():.3g} from "
            f"{what} (checked row {row}, class and feature {place}); expected at most "
            f"{TOLERANCES[booster.kind]:g}. Nothing was explained; please report this as a "
            "defect, with the versions in provenance.json."
        )


def select_columns(names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """Find a model's features among the columns of a table.

    Parameters
    ----------
    names : sequence of str
        The table's columns.
    wanted : sequence of str
        The model's features.

    Returns
    -------
    ndarray of int64, shape (len(wanted),)
        Positions in ``names``.

    Raises
    ------
    ValueError
        If the table lacks one.
    """
    place = {name: position for position, name in enumerate(names)}
    if absent := [name for name in wanted if name not in place]:
        raise ValueError(
            f"The features lack {absent[0]!r}, which the model was trained on (and "
            f"{len(absent) - 1} more); pool the same statistics of the same modalities."
        )
    return np.array([place[name] for name in wanted], dtype=np.int64)
