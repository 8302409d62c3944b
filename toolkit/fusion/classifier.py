"""Late fusion as a scikit-learn classifier, by the rules of a study.

Early fusion needs no class: it is a ``ColumnTransformer`` of
:class:`toolkit.pooling.SequencePooler`.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, TransformerMixin, clone
from sklearn.model_selection import BaseCrossValidator, GroupKFold
from sklearn.utils import _safe_indexing, assert_all_finite, check_array, column_or_1d
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from toolkit.fusion.inputs import (
    InnerPredictions,
    NewPredictions,
    Rule,
    StackedPredictions,
    one_blas_thread,
)
from toolkit.fusion.late import FIXED_RULES, LATE_METHODS, describe_rule, learn_rule
from toolkit.models import class_priors
from toolkit.validation.folds import FINAL, Fold
from toolkit.validation.ledger import Ledger

_Part = tuple[Any, "NDArray[np.bool_]"]
"""The columns of a voter, and whether each row has its modality."""


class LateFusion(ClassifierMixin, TransformerMixin, _BaseComposition):
    """Fit one classifier per modality and fuse their predictions.

    A row may lack a modality: a cell that is None or NaN, or columns that are all missing. The
    modality's classifier then neither learns from the row nor takes part in its fusion.

    Parameters
    ----------
    voters : list of (str, estimator, columns)
        At least two: a name, a classifier with ``predict_proba``, and its columns of ``X``,
        as a ``ColumnTransformer`` takes them (one name or position gives a series).
    method : {"vote", "soft", "weighted", "stacked", "log-pool"}, default="vote"
        The rule: :func:`majority_vote`, :func:`soft_vote`, the mean weighted for the least
        log-loss, a logistic regression over the log-probabilities, or a weighted sum of
        margins.
    groups : str or int, optional
        Column of ``X`` with the person: rules that learn do so from out-of-fold predictions
        that hold people out.
    cv : int or splitter, default=3
        Folds of these predictions: a number of group folds, or a scikit-learn splitter.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The classes, sorted.
    estimators_ : list of estimator
        The classifiers, each fitted on the rows that have its modality.
    class_prior_ : ndarray of float64, shape (n_classes,)
        Class priors of the training rows: they predict a row without any modality, and decide
        the last ties.
    weights_ : ndarray of float64, shape (n_voters,)
        Of ``weighted``, where they sum to 1, and of ``log-pool``.

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
        # scikit-learn looks for nested parameters in pairs of a name and an estimator. It asks
        # before `fit` has checked the voters, so malformed ones have no pairs here.
        try:
            return [(name, voter) for name, voter, _ in self.voters]
        except (TypeError, ValueError):
            return []

    @_pairs.setter
    def _pairs(self, pairs: list[tuple[str, Any]]) -> None:
        columns = [columns for _, _, columns in self.voters]
        self.voters = [(*pair, seen) for pair, seen in zip(pairs, columns, strict=True)]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters, those of the voters included.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include ``<voter>`` and ``<voter>__<parameter>``.

        Returns
        -------
        dict
            Name to value.
        """
        return dict(self._get_params("_pairs", deep=deep))

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
            One row per utterance. A cell may be a sequence, if the classifier pools it.
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
        if self.method not in LATE_METHODS:
            raise ValueError(
                f"Unknown method {self.method!r}; choose among {', '.join(LATE_METHODS)}."
            )
        if len(self.voters) < 2:
            raise ValueError(f"Got {len(self.voters)} voter(s); expected at least two.")
        self._validate_names([name for name, _, _ in self.voters])
        learns = self.method not in FIXED_RULES
        if learns and self.groups is None and isinstance(self.cv, int):
            raise ValueError(
                f"{self.method} learns from out-of-fold predictions that hold people out: name "
                "their column of X in groups, or give a splitter as cv if the rows are "
                "independent."
            )
        X = self._checked(X, reset=True)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        check_consistent_length(X, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.class_prior_ = class_priors(codes, len(self.classes_))
        parts = self._split(X)
        self.estimators_ = self._fit_voters(parts, y, np.arange(len(codes)))
        self._rule = self._learn(X, y, codes, parts) if learns else FIXED_RULES[self.method]
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Predict fused class probabilities.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n, n_columns)
            With the columns seen in ``fit``.

        Returns
        -------
        ndarray of float64, shape (n, n_classes)
            In the order of ``classes_``; ``class_prior_`` for a row without any modality.
        """
        return self._fuse(X).proba

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict a class, ties as in a study.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n, n_columns)
            With the columns seen in ``fit``.

        Returns
        -------
        ndarray, shape (n,)
            Each one of ``classes_``.
        """
        y_pred = self._fuse(X).y_pred
        return np.asarray(self.classes_[y_pred])

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Predict the class probabilities of every voter, unfused.

        Parameters
        ----------
        X : DataFrame or array-like, shape (n, n_columns)
            With the columns seen in ``fit``.

        Returns
        -------
        ndarray of float64, shape (n, n_voters * n_classes)
            Voter by voter; NaN where the row lacks the modality.
        """
        stacked = self._predict(X)
        return np.hstack(list(np.where(stacked.present[:, :, None], stacked.proba, np.nan)))

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Name the columns of ``transform``.

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

    def _checked(self, X: Any, *, reset: bool) -> Any:
        if not hasattr(X, "iloc"):
            X = check_array(X, dtype=None, ensure_all_finite=False, estimator=self)
        validate_data(self, X, reset=reset, skip_check_array=True)
        return X

    def _split(self, X: Any) -> list[_Part]:
        """Take the columns of every voter, and find the rows that have its modality."""
        parts = []
        for _, _, columns in self.voters:
            part = _safe_indexing(X, columns, axis=1)
            missing: NDArray[np.bool_] = np.asarray(pd.isna(part))
            if missing.ndim == 2:
                missing = np.asarray(missing.all(axis=1))
            parts.append((part, ~missing))
        return parts

    def _fit_voters(self, parts: list[_Part], y: Any, rows: NDArray[np.int64]) -> list[Any]:
        fitted = []
        for (name, voter), (part, present) in zip(self._pairs, parts, strict=True):
            known = rows[present[rows]]
            if len(known) == 0:
                raise ValueError(f"{name!r} has nothing to learn from: no row has its columns.")
            fitted.append(clone(voter).fit(_safe_indexing(part, known), y[known]))
        return fitted

    def _predict_voters(
        self, fitted: list[Any], parts: list[_Part], rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Predict probabilities, shape (n_voters, n, n_classes); priors of absent rows."""
        proba = np.tile(self.class_prior_, (len(fitted), len(rows), 1))
        for of_voter, voter, (part, present) in zip(proba, fitted, parts, strict=True):
            seen = present[rows]
            if seen.any():
                # A voter that lacks a class in training gives it no probability.
                of_voter[seen] = 0
                columns = np.searchsorted(self.classes_, voter.classes_)
                predicted = voter.predict_proba(_safe_indexing(part, rows[seen]))
                of_voter[np.ix_(seen, columns)] = predicted
        return proba

    def _stack(self, proba: NDArray[np.float64], parts: list[_Part]) -> StackedPredictions:
        present = np.stack([present for _, present in parts])
        priors = np.tile(self.class_prior_, (proba.shape[1], 1))
        return StackedPredictions(proba.argmax(axis=2), proba, present, priors)

    def _learn(self, X: Any, y: Any, codes: NDArray[np.int64], parts: list[_Part]) -> Rule:
        """Learn the rule from out-of-fold predictions, by the code of a study's folds."""
        n = len(codes)
        groups = None
        if self.groups is not None:
            groups = np.asarray(_safe_indexing(X, self.groups, axis=1))
        splitter = GroupKFold(self.cv) if isinstance(self.cv, int) else self.cv
        proba, n_tests = np.empty((len(parts), n, len(self.classes_))), np.zeros(n, dtype=int)
        for train, test in splitter.split(codes[:, None], codes, groups):
            proba[:, test] = self._predict_voters(
                self._fit_voters(parts, y, train), parts, test
            )
            n_tests[test] += 1
        if (n_tests != 1).any():
            raise ValueError(
                f"The folds of cv test {n_tests.sum()} of {n} rows; expected each once."
            )
        stacked = self._stack(proba, parts)
        # Without groups the splitter takes rows as independent, so each is its own group.
        people = (np.arange(n) if groups is None else groups).astype(str)
        inner = InnerPredictions(np.arange(n), codes, people, stacked.seen, stacked.proba[0])
        nothing_held_out = Fold(FINAL, np.arange(n), np.empty(0, dtype=np.int64), ())
        ledger = Ledger(self.method, nothing_held_out, np.arange(n).astype(str), people)
        with one_blas_thread():
            rule, _ = learn_rule(self.method, stacked, inner, lambda _: ledger)
        if self.method != "stacked":
            self.weights_ = np.array(describe_rule(rule))
        return rule

    def _predict(self, X: Any) -> StackedPredictions:
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        parts = self._split(X)
        proba = self._predict_voters(self.estimators_, parts, np.arange(len(X)))
        return self._stack(proba, parts)

    def _fuse(self, X: Any) -> NewPredictions:
        stacked = self._predict(X)
        with one_blas_thread():
            return self._rule(stacked)
