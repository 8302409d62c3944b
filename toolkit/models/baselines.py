"""The baseline without features: the class priors."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.models.checks import check_labels


def class_priors(y: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Compute each class's share of the training rows.

    Their ``argmax`` is the majority class, and the lowest of equal ones.

    Parameters
    ----------
    y : array-like of int, shape (n_rows,)
        Class positions.
    n_classes : int
        Number of the study's classes.

    Returns
    -------
    ndarray of float64, shape (n_classes,)
        Priors, which sum to 1.

    Raises
    ------
    ValueError
        If there are no rows, or labels are not class positions.

    Examples
    --------
    >>> class_priors([0, 2, 2, 2], n_classes=4).tolist()
    [0.25, 0.0, 0.75, 0.0]
    """
    labels = check_labels(y, len(np.atleast_1d(y)), n_classes)
    if len(labels) == 0:
        raise ValueError("Cannot take class shares of no rows.")
    return np.bincount(labels, minlength=n_classes) / len(labels)
