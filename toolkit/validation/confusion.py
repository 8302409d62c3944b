"""Confusion counts, and the scores that are functions of them.

No score here needs a whole confusion matrix: the hits, the true rows and the given rows of
every class are enough. Functions take such counts with shape ``(..., 3, n_classes)``, so
one call scores every speaker, every left-out speaker or every pattern of a permutation
test. Whatever would divide by zero counts as 0.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def confusion_matrices(
    labels: NDArray[np.int64],
    decided: NDArray[np.int64],
    n_classes: int,
    groups: NDArray[np.int64] | None = None,
    n_groups: int = 1,
) -> NDArray[np.int64]:
    """Count true against predicted classes, group by group.

    Parameters
    ----------
    labels, decided : ndarray of int64, shape (n,)
        True and predicted class positions.
    n_classes : int
        Number of classes.
    groups : ndarray of int64, shape (n,), optional
        Group number of every row; all rows are one group by default.
    n_groups : int, default=1
        Number of groups.

    Returns
    -------
    ndarray of int64, shape (n_groups, n_classes, n_classes)
        Counts, true classes in rows.

    Examples
    --------
    >>> import numpy as np
    >>> confusion_matrices(np.array([0, 0, 1]), np.array([0, 1, 1]), n_classes=2)
    array([[[1, 1],
            [0, 1]]])
    """
    numbers = np.zeros_like(labels) if groups is None else groups
    cells = (numbers * n_classes + labels) * n_classes + decided
    counts = np.bincount(cells, minlength=n_groups * n_classes**2)
    return counts.astype(np.int64).reshape(n_groups, n_classes, n_classes)


def class_counts(matrices: NDArray[np.int64]) -> Floats:
    """Reduce confusion matrices to what scores need.

    Parameters
    ----------
    matrices : ndarray of int64, shape (..., n_classes, n_classes)
        Confusion matrices, true classes in rows.

    Returns
    -------
    ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows of every class.

    Examples
    --------
    >>> import numpy as np
    >>> class_counts(np.array([[3, 1], [0, 4]]))
    array([[3., 4.],
           [4., 4.],
           [3., 5.]])
    """
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    parts = [hits, matrices.sum(axis=-1), matrices.sum(axis=-2)]
    return np.stack(parts, axis=-2).astype(np.float64)


def class_recall(counts: Floats) -> Floats:
    """Share of the rows of every class that were found.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (..., n_classes)
        Recall of every class.
    """
    return ratio(counts[..., 0, :], counts[..., 1, :])


def class_precision(counts: Floats) -> Floats:
    """Share of the rows given to every class that belong to it.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (..., n_classes)
        Precision of every class.
    """
    return ratio(counts[..., 0, :], counts[..., 2, :])


def class_f1(counts: Floats) -> Floats:
    """Harmonic mean of precision and recall of every class.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (..., n_classes)
        F1 of every class.
    """
    return ratio(2 * counts[..., 0, :], counts[..., 1, :] + counts[..., 2, :])


def micro_f1(counts: Floats) -> Floats:
    """Share of the rows that were predicted right: F1-micro where a row has one label.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (...)
        F1-micro, equal to the accuracy.

    Examples
    --------
    >>> import numpy as np
    >>> float(micro_f1(class_counts(np.array([[3, 1], [0, 4]]))))
    0.875
    """
    return ratio(counts[..., 0, :].sum(axis=-1), counts[..., 1, :].sum(axis=-1))


def macro_f1(counts: Floats, *, present_only: bool = False) -> Floats:
    """Mean of the classes' F1.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (...)
        Macro-F1.
    """
    return _class_mean(class_f1(counts), counts, present_only=present_only)


def unweighted_recall(counts: Floats, *, present_only: bool = False) -> Floats:
    """Mean of the classes' recall, known in speech as UAR.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (...)
        Unweighted average recall.

    Examples
    --------
    A speaker who never shows the third class is not punished for it:

    >>> import numpy as np
    >>> counts = class_counts(np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]]))
    >>> float(unweighted_recall(counts, present_only=True))
    0.625
    """
    return _class_mean(class_recall(counts), counts, present_only=present_only)


def weighted_f1(counts: Floats) -> Floats:
    """Mean of the classes' F1, weighted by their rows.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (...)
        Weighted F1.
    """
    rows = counts[..., 1, :]
    return ratio((class_f1(counts) * rows).sum(axis=-1), rows.sum(axis=-1))


def matthews_correlation(counts: Floats) -> Floats:
    """Correlation of true and predicted classes, 0 where either is constant.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (...)
        Coefficient, from -1 to 1.

    References
    ----------
    Gorodkin, J. (2004). Comparing two K-category assignments by a K-category correlation
    coefficient. Computational Biology and Chemistry 28, equation 8.

    Examples
    --------
    >>> import numpy as np
    >>> float(matthews_correlation(class_counts(np.array([[6, 2], [1, 3]]))))
    0.478
    """
    hits, true, given = (counts[..., part, :] for part in range(3))
    n = true.sum(axis=-1)
    covariance = n * hits.sum(axis=-1) - (true * given).sum(axis=-1)
    spread_true = n**2 - (true**2).sum(axis=-1)
    spread_given = n**2 - (given**2).sum(axis=-1)
    return ratio(covariance, np.sqrt(spread_true * spread_given))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, taking 0 where the denominator is not above 0.

    Parameters
    ----------
    numerator, denominator : ndarray of float64
        Of one shape.
    """
    quotient = np.zeros(np.shape(numerator))
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)


def _class_mean(per_class: Floats, counts: Floats, *, present_only: bool) -> Floats:
    if not present_only:
        return np.asarray(per_class.mean(axis=-1))
    chosen = (counts[..., 1, :] > 0).astype(np.float64)
    return ratio((per_class * chosen).sum(axis=-1), chosen.sum(axis=-1))
