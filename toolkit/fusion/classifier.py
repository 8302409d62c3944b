"""Late fusion as a scikit-learn classifier, for pipelines of one's own.

The rules are those of a study; here they stand behind ``fit`` and ``predict``, so that any
classifier of scikit-learn's kind may speak for a modality. Early fusion needs no class: it is
a ``ColumnTransformer`` of :class:`toolkit.pooling.SequencePooler`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from sklearn.base import ClassifierMixin, TransformerMixin, clone
from sklearn.model_selection import GroupKFold
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from toolkit.fusion.inputs import (
    FusedPredictions,
    InnerPredictions,
    Rule,
    StackedPredictions,
    one_blas_thread,
)
from toolkit.fusion.late import average, count_votes, fit_weights, learn_stacker
from toolkit.models.baselines import class_priors
from toolkit.validation.folds import FINAL, Fold
from toolkit.validation.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sklearn.model_selection import BaseCrossValidator

METHODS: Final = ("vote", "soft", "weighted", "stacked")
_LEARNING: Final = ("weighted", "stacked")


class LateFusion(ClassifierMixin, TransformerMixin, _BaseComposition):
    """Fit one classifier a modality and fuse what they say.

    A row may lack a modality: a cell that is None or NaN, or columns that are all missing. Its
    classifier then neither learns from the row nor has a say in it.

    Parameters
    ----------
    voters : list of (str, estimator, columns)
        A name, a classifier with ``predict_proba``, and the columns of ``X`` that it sees, as a
        ``ColumnTransformer`` takes them: a name or position for one column, which is handed on
        as a series, a list or slice for several. At least two.
    method : {"vote", "soft", "weighted", "stacked"}, default="vote"
        The rule, as :func:`majority_vote`, :func:`soft_vote`, :func:`weighted_vote` and
        :func:`stack` describe it.
    groups : str or int, optional
        Column of ``X`` that tells the person. ``weighted`` and ``stacked`` learn from
        out-of-fold predictions that hold people out; the classifiers never see this column
        unless their own columns name it.
    cv : int or splitter, default=3
        Folds of these predictions: a number of group folds, or a splitter of scikit-learn's,
        which is handed the groups if there are any.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The classes, sorted.
    fitted_ : list of estimator
        The classifiers, each fitted on the rows that have its modality.
    shares_ : ndarray of float64, shape (n_classes,)
        Class shares of the training rows, which stand for a row without any modality and
        decide what is still tied.
    weights_ : ndarray of float64, shape (n_voters,)
        Of ``weighted``: they sum to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> X = np.array([[0.0, 1.0], [0.0, np.nan], [1.0, 0.0], [1.0, 0.0]])
    >>> voters = [("face", LogisticRegression(), [0]), ("voice", LogisticRegression(), [1])]
    >>> fusion = LateFusion(voters, method="soft").fit(X, ["sad", "sad", "glad", "glad"])
    >>> fusion.predict([[0.0, 1.0], [1.0, np.nan], [np.nan, np.nan]]).tolist()
    ['sad', 'glad', 'glad']
    """

    def __init__(
        self,
        voters: Sequence[tuple[str, Any, Any]],
        *,
        method: str = "vote",
        groups: str | int | None = None,
        cv: int | BaseCrossValidator = 3,
    ) -> None:
        self.voters = voters
        self.method = method
        self.groups = groups
        self.cv = cv

    @property
    def _pairs(self) -> list[tuple[str, Any]]:
        # scikit-learn finds nested parameters in pairs of a name and an estimator. It looks for
        # them in whatever was handed over, too; what is wrong with that is for fit to say.
        try:
            return [(name, voter) for name, voter, _ in self.voters]
        except (TypeError, ValueError):
            return []

    @_pairs.setter
    def _pairs(self, pairs: list[tuple[str, Any]]) -> None:
        columns = [columns for _, _, columns in self.voters]
        self.voters = [(*pair, seen) for pair, seen in zip(pairs, columns, strict=True)]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the parameters, those of the voters included.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include ``<voter>`` and ``<voter>__<parameter>``.

        Returns
        -------
        dict
            Name to value.
        """
        params: dict[str, Any] = self._get_params("_pairs", deep=deep)
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of the voters included.

        Parameters
        ----------
        **params : object
            As :meth:`get_params` names them.

        Returns
        -------
        LateFusion
            This object.
        """
        self._set_params("_pairs", **params)
        return self

    def fit(self, X: Any, y: Any) -> Self:
        """Fit every classifier on the rows that have its modality, then the rule.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n, n_columns)
            A row an utterance. A cell may be a sequence, where the classifier pools it.
        y : array-like, shape (n,)
            The classes.

        Returns
        -------
        LateFusion
            This object.

        Raises
        ------
        ValueError
            If the voters, the method or the groups do not fit, or a modality is in no row.
        """
        self._check_request()
        X = self._checked(X, reset=True)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        check_consistent_length(X, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.shares_ = class_priors(codes, len(self.classes_))
        parts = [self._part(X, columns) for _, _, columns in self.voters]
        everything = np.arange(len(codes))
        self.fitted_ = self._fit_voters(parts, y, everything)
        self._rule = self._learn_rule(X, y, codes, parts)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Give the fused class probabilities.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n, n_columns)
            With the columns seen in ``fit``.

        Returns
        -------
        ndarray of float64, shape (n, n_classes)
            In the order of ``classes_``; the training shares for a row without any modality.
        """
        return self._fuse(X).proba

    def predict(self, X: Any) -> NDArray[Any]:
        """Decide for a class, ties as in a study.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n, n_columns)
            With the columns seen in ``fit``.

        Returns
        -------
        ndarray, shape (n,)
            Some of ``classes_``.
        """
        y_pred = self._fuse(X).y_pred
        return np.asarray(self.classes_[y_pred])

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Give what every voter says, unfused.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n, n_columns)
            With the columns seen in ``fit``.

        Returns
        -------
        ndarray of float64, shape (n, n_voters * n_classes)
            Probabilities, voter by voter; missing where the voter had nothing to see.
        """
        panel = self._panel(X)
        return np.hstack(list(np.where(panel.present[:, :, None], panel.proba, np.nan)))

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the columns of ``transform``.

        Parameters
        ----------
        input_features : object, optional
            Not used; scikit-learn passes it.

        Returns
        -------
        ndarray of str
            ``voter__class``.
        """
        check_is_fitted(self)
        names = [f"{voter}__{name}" for voter, _ in self._pairs for name in self.classes_]
        return np.asarray(names, dtype=object)

    def _check_request(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"Unknown method {self.method!r}; choose among {', '.join(METHODS)}."
            )
        if len(self.voters) < 2:
            raise ValueError(f"Got {len(self.voters)} voter(s); expected at least two.")
        self._validate_names([name for name, _, _ in self.voters])
        if self.method in _LEARNING and self.groups is None and isinstance(self.cv, int):
            raise ValueError(
                f"{self.method} learns from out-of-fold predictions that hold people out, and "
                "nothing tells the people: name their column of X in groups, or give a "
                "splitter as cv if the rows are independent."
            )

    def _checked(self, X: Any, *, reset: bool) -> Any:
        if not hasattr(X, "iloc"):
            X = check_array(X, dtype=None, ensure_all_finite=False, estimator=self)
        validate_data(self, X, reset=reset, skip_check_array=True)
        return X

    @staticmethod
    def _part(X: Any, columns: Any) -> tuple[Any, NDArray[np.bool_]]:
        """Give the columns of a voter, and the rows that have its modality."""
        missing: NDArray[np.bool_]
        if hasattr(X, "iloc"):
            part = X.iloc[:, columns] if isinstance(columns, int | slice) else X[columns]
            missing = np.asarray(part.isna())
        else:
            part = X[:, columns]
            missing = (
                np.asarray(np.isnan(part)) if part.dtype.kind == "f" else _find_empty(part)
            )
        return part, ~(missing if missing.ndim == 1 else np.asarray(missing.all(axis=1)))

    def _fit_voters(
        self, parts: list[tuple[Any, NDArray[np.bool_]]], y: Any, rows: NDArray[np.int64]
    ) -> list[Any]:
        fitted = []
        for (name, voter), (part, present) in zip(self._pairs, parts, strict=True):
            mine = rows[present[rows]]
            if len(mine) == 0:
                raise ValueError(f"{name!r} has nothing to learn from: no row has its columns.")
            fitted.append(clone(voter).fit(_take(part, mine), y[mine]))
        return fitted

    def _ask(
        self,
        fitted: list[Any],
        parts: list[tuple[Any, NDArray[np.bool_]]],
        rows: NDArray[np.int64],
    ) -> StackedPredictions:
        shares = np.tile(self.shares_, (len(rows), 1))
        proba = np.tile(shares, (len(fitted), 1, 1))
        present = np.stack([present[rows] for _, present in parts])
        for said, here, voter, (part, _) in zip(proba, present, fitted, parts, strict=True):
            if here.any():
                # A voter may have met fewer classes than all voters together.
                known = np.searchsorted(self.classes_, voter.classes_)
                answer = np.zeros((here.sum(), len(self.classes_)))
                answer[:, known] = voter.predict_proba(_take(part, rows[here]))
                said[here] = answer
        return StackedPredictions(proba.argmax(axis=2), proba, present, shares)

    def _learn_rule(
        self, X: Any, y: Any, codes: NDArray[np.int64], parts: list[tuple[Any, Any]]
    ) -> Rule:
        if self.method not in _LEARNING:
            return {"vote": count_votes, "soft": average}[self.method]
        groups = None if self.groups is None else np.asarray(self._part(X, self.groups)[0])
        splitter = GroupKFold(self.cv) if isinstance(self.cv, int) else self.cv
        asked: list[tuple[NDArray[np.int64], StackedPredictions]] = []
        for train, test in splitter.split(codes[:, None], codes, groups):
            asked.append((test, self._ask(self._fit_voters(parts, y, train), parts, test)))
        order = np.argsort(np.concatenate([test for test, _ in asked]), kind="stable")
        if len(order) != len(codes):
            raise ValueError(
                f"The folds of cv test {len(order)} of {len(codes)} rows; expected each once."
            )
        panel = StackedPredictions(
            np.concatenate([one.votes for _, one in asked], axis=1)[:, order],
            np.concatenate([one.proba for _, one in asked], axis=1)[:, order],
            np.concatenate([one.present for _, one in asked], axis=1)[:, order],
            np.concatenate([one.shares for _, one in asked])[order],
        )
        with one_blas_thread():
            if self.method == "weighted":
                self.weights_ = fit_weights(panel, codes)
                return partial(average, weights=self.weights_)
            return _learn_stacker(panel, codes, groups)

    def _panel(self, X: Any) -> StackedPredictions:
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        parts = [self._part(X, columns) for _, _, columns in self.voters]
        return self._ask(self.fitted_, parts, np.arange(len(X)))

    def _fuse(self, X: Any) -> FusedPredictions:
        panel = self._panel(X)
        with one_blas_thread():
            return self._rule(panel)


def _learn_stacker(panel: StackedPredictions, codes: NDArray[np.int64], groups: Any) -> Rule:
    """Choose the stacker's penalty by groups left out; rows without groups are their own."""
    n = len(codes)
    people = np.arange(n).astype(str) if groups is None else groups.astype(str)
    inner = InnerPredictions(np.arange(n), codes, people, panel.seen, panel.proba[0])
    nobody = Fold(FINAL, np.arange(n), np.empty(0, dtype=np.int64), ())
    ledger = Ledger("stacked", nobody, np.arange(n).astype(str), people)
    return learn_stacker(panel, inner, ledger)[0]


def _find_empty(part: NDArray[Any]) -> NDArray[np.bool_]:
    """Find cells that are None or NaN, where cells may be anything."""
    if part.dtype.kind == "f":
        return np.asarray(np.isnan(part))
    flat = [cell is None or (isinstance(cell, float) and cell != cell) for cell in part.flat]  # noqa: PLR0124
    return np.array(flat, dtype=bool).reshape(part.shape)


def _take(part: Any, rows: NDArray[np.int64]) -> Any:
    return part.iloc[rows] if hasattr(part, "iloc") else part[rows]
