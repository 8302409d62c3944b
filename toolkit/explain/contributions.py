"""Exact contributions to the margins of held-out rows, streamed in blocks.

Those of trees are path-dependent TreeSHAP. A linear part adds its coefficient times the
column's distance from its mean, so both add up to the margin.

The fast path reads the trees once (:mod:`toolkit.explain.trees`) and runs compiled passes over
blocks of rows (:mod:`toolkit.explain.treeshap`). Trees that only their library explains get the
booster's own contributions, in the same blocks.
"""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.explain.trees import (
    Block,
    Forest,
    TreeLayout,
    UnsupportedTreeError,
    load_treeshap,
)
from toolkit.models import FittedBooster
from toolkit.models.checks import check_matrix
from toolkit.pooling import FeatureName
from toolkit.pooling.statistics import VALUE

_TOLERANCES: Final = {"lightgbm": 1e-10, "xgboost": 1e-5}
"""Largest difference from the booster's own contributions, in units of max(1, |margin|) for
XGBoost, whose own are summed in float32."""


class ExplanationError(RuntimeError):
    """Contributions differ from the booster's own: a defect."""


#: Contributions of trees are divided by their weight above it.
_LEAST_WEIGHT: Final = 0.01

_Dimensions = Mapping[str, Sequence[str]]
_UNNAMED: Final[_Dimensions] = MappingProxyType({})
_Key = TypeVar("_Key", str, tuple[str, int])


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """Sums of the contributions of one model.

    Parameters
    ----------
    parts : tuple of (str, str)
        Modality and statistic of every part, in the order of the model's features. For
        functionals of openSMILE, family and functional stand for the statistic.
    signed : ndarray of float64, shape (n_rows, n_classes, n_parts)
        Sum of the contributions to each class's margin; with ``base`` they add up to it.
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
        Modality and dimension to the magnitude of the joint contribution of all its
        statistics, centred, summed over rows.
    linear, trees : ndarray of float64, shape (n_rows, n_classes, n_parts), or None
        Sums to the margins of linear part and trees alone; None without a linear part.
    weights : ndarray of float64, shape (n_rows, 2), or None
        Weights of linear part and trees, of whose sums ``signed`` is the weighted sum.
    """

    parts: tuple[tuple[str, str], ...]
    signed: NDArray[np.float64]
    absolute: NDArray[np.float64]
    base: NDArray[np.float64]
    trained: NDArray[np.bool_]
    of_feature: Mapping[str, NDArray[np.float64]]
    of_dimension: Mapping[tuple[str, int], NDArray[np.float64]]
    linear: NDArray[np.float64] | None = None
    trees: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None

    @classmethod
    def join(
        cls, totals: "Sequence[Totals]", rows: Sequence[NDArray[np.int64]], n: int
    ) -> Self:
        """Join the sums of several models, each of its own rows.

        Parameters
        ----------
        totals : sequence of Totals
            One per model, for example one per outer fold.
        rows : sequence of ndarray of int64
            Positions of each model's rows among all rows.
        n : int
            Number of all rows; those of no model hold 0.

        Returns
        -------
        Totals
            With every part that some model has.
        """
        parts = tuple(dict.fromkeys(part for total in totals for part in total.parts))
        sums: dict[str, Any] = {}
        for name in ("signed", "absolute", "linear", "trees", "base", "trained", "weights"):
            one = getattr(totals[0], name)
            if one is not None:  # arrays of three axes are by part
                shape = (n, one.shape[1], len(parts))[: one.ndim]
                sums[name] = np.zeros(shape, dtype=one.dtype)
        for total, explained in zip(totals, rows, strict=True):
            columns = _number(total.parts, parts)
            for name, joined in sums.items():
                own = getattr(total, name)
                if own.ndim == 2:
                    joined[explained] = own
                else:
                    joined[explained[:, None], :, columns] = own.transpose(0, 2, 1)
        return cls(
            parts,
            **sums,
            of_feature=_add_up(total.of_feature for total in totals),
            of_dimension=_add_up(total.of_dimension for total in totals),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Explainer:
    """A model with its trees laid out to explain any row.

    Parameters
    ----------
    booster : FittedBooster
        The model, with its linear part where it has one.
    layout : TreeLayout or None
        Its trees; None where only the booster's own contributions will do.
    forest : Forest or None
        The same trees, node by node.
    columns : ndarray of int64, shape (n_used,)
        The features with contributions: those that some tree splits on, or all where they are
        the booster's own or there is a linear part. All others contribute 0.
    base : ndarray of float64, shape (n_classes,)
        The expected margin; 0 for a class without training rows.
    reason : str
        Why the booster's own contributions are used; empty on the fast path.
    functionals : mapping of str to tuple of str
        Modality to the family and functional of each dimension, as ``"pitch: amean"``.
    """

    booster: FittedBooster
    layout: TreeLayout | None
    forest: Forest | None
    columns: NDArray[np.int64]
    base: NDArray[np.float64]
    reason: str = ""
    functionals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, booster: FittedBooster, dimensions: _Dimensions = _UNNAMED) -> Self:
        """Read the trees of a booster, once for all rows.

        Parameters
        ----------
        booster : FittedBooster
            LightGBM or XGBoost.
        dimensions : mapping of str to sequence of str, default={}
            Modality to the names of its dimensions. Those of functionals of openSMILE are
            grouped by their families.

        Returns
        -------
        Explainer
            Ready for any rows.
        """
        base = np.zeros(booster.n_classes)
        trained = list(booster.classes)
        named = {name: _sort_functionals(names) for name, names in dimensions.items()}
        functionals = {name: parts for name, parts in named.items() if parts}
        try:
            forest = Forest.of(booster)
        except UnsupportedTreeError as why:
            # The expected margin is the same for every row, so any row will do.
            empty = np.full((1, len(booster.names)), np.nan, dtype=np.float32)
            base[trained] = booster.contributions(empty)[0, trained, -1]
            everything = np.arange(len(booster.names))
            return cls(booster, None, None, everything, base, str(why), functionals)
        layout = forest.lay_out()
        base[trained] = forest.intercept + np.bincount(
            forest.classes, layout.expected, minlength=len(trained)
        )
        columns = layout.columns
        if booster.linear is not None:
            a, b = booster.weights
            base[trained] = a * booster.linear.base + b * base[trained]
            columns = np.arange(len(booster.names))
        return cls(booster, layout, forest, columns, base, functionals=functionals)

    def part_of(self, name: FeatureName) -> tuple[str, str]:
        """Give the part of a feature, by which contributions are summed up.

        Parameters
        ----------
        name : FeatureName
            One of the model's features.

        Returns
        -------
        tuple of (str, str)
            Modality and statistic, or modality and ``"family: functional"``.
        """
        functionals = self.functionals.get(name.modality)
        if functionals and name.statistic == VALUE:
            return name.modality, functionals[name.dimension]
        return name.modality, name.statistic

    def blocks(self, X: ArrayLike) -> Iterator[Block]:
        """Explain rows block by block, so that no (n, features, classes) array is ever held.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Features in the order of training; NaN where missing.

        Returns
        -------
        iterator of Block
            In the order of the rows. Contributions are to margins, of the features in
            `columns` and the classes that the booster was trained on.
        """
        matrix = check_matrix(X, n_features=len(self.booster.names))
        if self.layout is None:
            return _booster_blocks(self.booster, matrix)
        blocks = self.layout.shap_blocks(matrix)
        if self.booster.linear is None:
            return blocks
        return _add_linear(self.booster, self.layout.columns, matrix, blocks)

    def explain(self, X: ArrayLike) -> NDArray[np.float64]:
        """Compute the contributions of every feature as one array, for few rows or features.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Features in the order of training; NaN where missing.

        Returns
        -------
        ndarray of float64, shape (n_rows, n_classes, n_features + 1)
            As of :meth:`FittedBooster.contributions`: the last column is the expected margin, a
            class without training rows has 0 everywhere.
        """
        booster = self.booster
        matrix = check_matrix(X, n_features=len(booster.names))
        contributions = np.zeros((len(matrix), booster.n_classes, len(booster.names) + 1))
        trained = np.array(booster.classes)
        for block in self.blocks(matrix):
            values = block.by_row
            index = np.ix_(np.arange(len(values)), trained, self.columns)
            contributions[block.rows][index] = values
        contributions[:, :, -1] = self.base
        return contributions

    def check(self, X: ArrayLike) -> float:
        """Compare contributions of a few rows with the booster's own, and sums with margins.

        Adding up to the margin alone proves nothing: contributions that do not merge the
        conditions on one feature add up too.

        Parameters
        ----------
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
        booster = self.booster
        matrix = check_matrix(X, n_features=len(booster.names))
        if len(matrix) == 0:
            return 0.0
        matrix = matrix[np.unique(np.linspace(0, len(matrix) - 1, 5).astype(np.int64))]
        ours = self.explain(matrix)
        theirs = booster.contributions(matrix)
        margins = theirs.sum(axis=2, keepdims=True)
        allowed = np.full_like(margins, _TOLERANCES[booster.kind])
        # XGBoost sums in float32, whose error grows with the margin.
        if booster.kind == "xgboost":
            allowed *= np.maximum(1, np.abs(margins))
        gaps = np.abs(ours - theirs)
        _refuse(gaps, allowed, booster, "the booster's own contributions")
        sums = np.abs(ours.sum(axis=2, keepdims=True) - margins)
        # Independent rounding errors of n terms add up to about sqrt(n) of one.
        allowed *= np.sqrt(ours.shape[2])
        _refuse(sums, allowed, booster, "the margin, added up")
        trained = list(booster.classes)
        odds = np.exp(ours.sum(axis=2)[:, trained])
        proba = booster.predict_proba(matrix)[:, trained]
        off = np.abs(odds / odds.sum(axis=1, keepdims=True) - proba)
        _refuse(off, _TOLERANCES[booster.kind], booster, "the predicted probabilities")
        return float(gaps.max())

    def total(self, X: ArrayLike) -> Totals:
        """Explain rows and keep sums only.

        The features must be named ``modality__statistic__dimension``. Margins of a softmax are
        defined up to a shift common to all classes, so magnitudes are taken of contributions
        less their mean over the classes that the model was trained on.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Features in the order of training; NaN where missing.

        Returns
        -------
        Totals
            Of these rows.
        """
        treeshap, booster = load_treeshap(), self.booster
        everything = parse_names(booster.names)
        names = [everything[column] for column in self.columns]
        parts = tuple(dict.fromkeys(map(self.part_of, everything)))
        groups = _number(map(self.part_of, names), parts)
        cells = tuple(sorted({(name.modality, name.dimension) for name in names}))
        dimensions = _number(((name.modality, name.dimension) for name in names), cells)
        # The pass adds up one dimension after the other, so it needs their features together.
        order = np.argsort(dimensions, kind="stable")
        trained = list(booster.classes)
        n_rows, n_trained = len(np.asarray(X)), len(trained)
        signed = np.zeros((n_rows, booster.n_classes, len(parts)))
        absolute = np.zeros_like(signed)
        of_feature = np.zeros((n_trained, len(names)))
        of_dimension = np.zeros((n_trained, len(cells)))
        for block in self.blocks(X):
            sums = np.zeros((2, n_trained, len(parts), treeshap.LANES))
            treeshap.add_totals(
                block.values.reshape(-1),
                n_trained,
                groups,
                order,
                dimensions[order],
                sums[0].reshape(-1),
                sums[1].reshape(-1),
                of_feature,
                of_dimension,
                np.zeros(treeshap.LANES),
            )
            by_row = sums.transpose(0, 3, 1, 2)[:, : block.rows.stop - block.rows.start]
            signed[block.rows, trained], absolute[block.rows, trained] = by_row

        def over_classes(sums: NDArray[np.float64]) -> NDArray[np.float64]:
            full = np.zeros((booster.n_classes, sums.shape[1]))
            full[trained] = sums
            return full.T

        blended = {}
        if booster.linear is not None:
            blended = _split_parts(self, check_matrix(X), signed, parts)
        return Totals(
            parts=parts,
            signed=signed,
            absolute=absolute,
            base=np.tile(self.base, (n_rows, 1)),
            trained=np.tile(np.isin(np.arange(booster.n_classes), trained), (n_rows, 1)),
            of_feature=dict(zip(map(str, names), over_classes(of_feature), strict=True)),
            of_dimension=dict(zip(cells, over_classes(of_dimension), strict=True)),
            **blended,
        )


def _add_linear(
    booster: FittedBooster,
    used: NDArray[np.int64],
    matrix: NDArray[np.float32],
    blocks: Iterator[Block],
) -> Iterator[Block]:
    """Weigh the trees' contributions, of the columns used, and add the linear part's."""
    assert booster.linear is not None
    a, b = booster.weights
    coefficients = booster.linear.coefficients
    for block in blocks:
        out = np.zeros((len(coefficients), matrix.shape[1], block.values.shape[2]))
        z = booster.linear.centred(matrix[block.rows])
        out[:, :, : len(z)] = (a * coefficients)[:, :, None] * z.T
        out[:, used] += b * block.values
        yield Block(block.rows, out)


def _split_parts(
    explainer: Explainer,
    matrix: NDArray[np.float32],
    signed: NDArray[np.float64],
    parts: Sequence[tuple[str, str]],
) -> dict[str, NDArray[np.float64]]:
    """Give the sums of linear part and trees alone, and the weights of both, row by row."""
    booster = explainer.booster
    assert booster.linear is not None
    (a, b), trained = booster.weights, list(booster.classes)
    keys = map(explainer.part_of, parse_names(booster.names))
    belongs = np.eye(len(parts))[_number(keys, parts)]
    linear = np.zeros_like(signed)
    linear[:, trained] = booster.linear.sum_by(matrix, belongs)
    if b > _LEAST_WEIGHT:
        trees = (signed - a * linear) / b
    else:  # the division would leave rounding errors alone
        alone = Explainer.of(replace(booster, linear=None))
        alone = replace(alone, functionals=explainer.functionals)
        trees = alone.total(matrix).signed
    return {
        "linear": linear,
        "trees": trees,
        "weights": np.tile(booster.weights, (len(matrix), 1)),
    }


def _booster_blocks(booster: FittedBooster, matrix: NDArray[np.float32]) -> Iterator[Block]:
    lanes = load_treeshap().LANES
    for start in range(0, len(matrix), lanes):
        own = booster.contributions(matrix[start : start + lanes])
        out = np.zeros((len(booster.classes), len(booster.names), lanes))
        out[:, :, : len(own)] = own[:, list(booster.classes), :-1].transpose(1, 2, 0)
        yield Block(slice(start, start + len(own)), out)


def _refuse(
    gaps: NDArray[np.float64], allowed: ArrayLike, booster: FittedBooster, expected: str
) -> None:
    wrong = np.greater(gaps, allowed)
    if wrong.any():
        row, *index = np.argwhere(wrong)[0].tolist()
        raise ExplanationError(
            f"Contributions of the {booster.kind} model differ by {gaps[wrong].max():.3g} from "
            f"{expected} (checked row {row}, class and feature {index}); expected at most "
            f"{_TOLERANCES[booster.kind]:g}. Nothing was explained; please report this as a "
            "defect, with the versions in provenance.json."
        )


_FAMILIES: Final = {
    "level": "mean first last p25 p50 p75",
    "extremes": "min max p01 p05 p10 p90 p95 p99",
    "spread": "std range iqr",
    "shape": "skew kurtosis share_above_mean",
    "course": "slope curvature argmax_position argmin_position mean_start mean_middle mean_end "
    "std_start std_middle std_end",
    "change": "delta_mean_abs delta_std delta_max_abs delta_p90_abs lag1 crossing_rate",
    "value": "value",
}
FAMILIES: Final[Mapping[str, str]] = MappingProxyType(
    {name: family for family, names in _FAMILIES.items() for name in names.split()}
)
"""Built-in statistic to its family."""


#: Families of descriptors of openSMILE (eGeMAPS, ComParE, emobase), and how names begin.
_DESCRIPTORS: Final = {
    "pitch": "F0",
    "formants": "F[1-9](frequency|bandwidth|amplitude)",
    "voice quality": "jitter|shimmer|(log)?HNR|voic(ing|eProb)",
    "energy": "loudness|pcm_((RMS|LOG)?energy|loudness|intensity|zcr)|audspec(Rasta)?_length",
    "spectrum": "mfcc|alphaRatio|hammarberg|slope|spectral|logRelF0|pcm_fftMag|audSpec_Rfilt|"
    "lspFreq|logMelFreqBand",
}
_WHOLE: Final = {
    "rate": "(loudnessPeaks|VoicedSegments)PerSec|(Mean|Stddev)(Unv|V)oicedSegmentLength(Sec)?",
    "energy": "equivalentSoundLevel_dBp",
}
_FUNCTIONAL: Final = r".*_sma\d*(?:nz)?(?:_de)*(?:\[\d+\])?_([^_].*)"


def _sort_functionals(names: Sequence[str]) -> tuple[str, ...]:
    """Name family and functional of each dimension; nothing if most are none of openSMILE."""
    parts = []
    for name in names:
        functional = re.fullmatch(_FUNCTIONAL, name)
        known = _DESCRIPTORS if functional else _WHOLE
        check = re.match if functional else re.fullmatch
        family = (family for family, text in known.items() if check(text, name, re.IGNORECASE))
        parts.append(f"{next(family, 'other')}: {functional[1] if functional else VALUE}")
    n_known = sum(not part.startswith("other: ") for part in parts)
    return tuple(parts) if 2 * n_known > len(parts) else ()


def family_of(statistic: str) -> str:
    """Name the family of a statistic or functional; one of a user is its own family."""
    return FAMILIES.get(statistic, statistic.partition(": ")[0])


def parse_names(names: Sequence[str]) -> list[FeatureName]:
    """Parse feature names such as ``"visual__p90__0412"``."""
    return list(_parse_once(tuple(names)))


@lru_cache(maxsize=4)
def _parse_once(names: tuple[str, ...]) -> tuple[FeatureName, ...]:
    return tuple(map(FeatureName.parse, names))


def centre(contributions: NDArray[np.float64], trained: ArrayLike) -> NDArray[np.float64]:
    """Subtract from contributions their mean over the classes.

    Parameters
    ----------
    contributions : ndarray of float64, shape (n_rows, n_classes, ...)
        Contributions to margins.
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
    # Rows that no model explains have no trained class; they stay 0.
    mean /= np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.asarray((contributions - mean) * mask)


def _number(keys: Iterable[Hashable], order: Sequence[Hashable]) -> NDArray[np.int64]:
    position = {key: number for number, key in enumerate(order)}
    return np.array([position[key] for key in keys], dtype=np.int64)


def _add_up(tables: Iterable[Mapping[_Key, NDArray[np.float64]]]) -> dict[_Key, Any]:
    sums: dict[_Key, NDArray[np.float64]] = {}
    for table in tables:
        for key, values in table.items():
            sums[key] = sums[key] + values if key in sums else values
    return {key: sums[key] for key in sorted(sums)}
