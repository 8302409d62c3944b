"""The metrics: what each is called, which way is better, and how it is computed.

F1-micro comes first because it is what studies of emotion report; where every row has one
label it is the accuracy. Macro averages of pooled rows are over all classes of the study.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from toolkit.validation import confusion
from toolkit.validation.tallies import (
    Codes,
    Floats,
    Rows,
    calibration_error,
    mean_loss,
    tally_brier,
    tally_counts,
    tally_gaps,
    tally_log_loss,
)


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity that says how good predictions are.

    Parameters
    ----------
    name : str
        Key in :data:`METRICS` and in every file, for example ``"f1_micro"``.
    title : str
        Name for readers, for example ``"F1-micro"``.
    direction : {"maximize", "minimize"}
        Which way is better.
    low, high : float
        Range, to which intervals are clipped.
    tally : callable
        Sums over :class:`~toolkit.validation.tallies.Rows`, first axis the group.
    value : callable
        The metric of tallies ``(..., *shape)``, shape ``(...)``, over all the classes.
    local : callable or None
        The metric of one fold or speaker, over the classes that occur there; None where a
        single speaker has too few rows for it to mean anything.
    """

    name: str
    title: str
    direction: Literal["maximize", "minimize"]
    low: float
    high: float
    tally: Callable[[Rows], Floats]
    value: Callable[[Floats], Floats]
    local: Callable[[Floats], Floats] | None

    def compute(self, labels: Codes, proba: Floats, decided: Codes | None = None) -> float:
        """Score rows pooled together.

        Parameters
        ----------
        labels : ndarray of int64, shape (n,)
            True class positions.
        proba : ndarray of float64, shape (n, n_classes)
            Probabilities; their width is the number of classes.
        decided : ndarray of int64, shape (n,), optional
            Predicted class positions; the most probable class by default.

        Returns
        -------
        float
            The metric over all rows and all classes.

        Raises
        ------
        ValueError
            If there are no rows.

        Examples
        --------
        >>> import numpy as np
        >>> labels, proba = np.array([0, 0, 1]), np.array([[0.8, 0.2], [0.4, 0.6], [0, 1]])
        >>> METRICS["f1_micro"].compute(labels, proba)
        0.667
        >>> METRICS["log_loss"].compute(labels, proba)
        0.380
        """
        if len(labels) == 0:
            raise ValueError(f"No rows to score by {self.name}; expected at least one.")
        given = proba.argmax(axis=1) if decided is None else decided
        rows = Rows(labels, given, proba, np.zeros_like(labels), 1)
        return float(self.value(self.tally(rows)[0]))


_macro_f1_present = partial(confusion.macro_f1, present_only=True)
_recall_present = partial(confusion.unweighted_recall, present_only=True)
_CONFUSION = (
    ("f1_micro", "F1-micro", 0, confusion.micro_f1, confusion.micro_f1),
    ("f1_macro", "F1-macro", 0, confusion.macro_f1, _macro_f1_present),
    ("uar", "UAR", 0, confusion.unweighted_recall, _recall_present),
    ("f1_weighted", "F1-weighted", 0, confusion.weighted_f1, confusion.weighted_f1),
    ("mcc", "MCC", -1, confusion.matthews_correlation, confusion.matthews_correlation),
)
_LOSSES = (
    ("log_loss", "Log-loss", np.inf, tally_log_loss, mean_loss, mean_loss),
    ("brier", "Brier score", 2, tally_brier, mean_loss, mean_loss),
    ("ece", "Calibration error", 1, tally_gaps, calibration_error, None),
)
METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        name: Metric(name, title, "maximize", low, 1, tally_counts, value, local)
        for name, title, low, value, local in _CONFUSION
    }
    | {
        name: Metric(name, title, "minimize", 0, high, tally, value, local)
        for name, title, high, tally, value, local in _LOSSES
    }
)
"""Every metric by name, in the order of the tables."""

CLASS_METRICS: Final[Mapping[str, Callable[[Floats], Floats]]] = MappingProxyType(
    {
        "recall": confusion.class_recall,
        "precision": confusion.class_precision,
        "f1": confusion.class_f1,
    }
)
"""What is said of every class: functions of confusion counts."""
