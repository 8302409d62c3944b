"""Families of pooled statistics: what of a sequence a statistic speaks of."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from toolkit.pooling import FeatureName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
"""Statistic to its family; a statistic of the user's own is a family of its own."""


def family_of(statistic: str) -> str:
    """Name the family of a statistic.

    Returns
    -------
    str
        ``level``, ``extremes``, ``spread``, ``shape``, ``course`` (over the sequence),
        ``change`` (from frame to frame), ``value`` (of files without a time axis), or the
        statistic itself where it is the user's own.

    Examples
    --------
    >>> family_of("delta_std"), family_of("energy")
    ('change', 'energy')
    """
    return FAMILIES.get(statistic, statistic)


def parse_names(names: Sequence[str]) -> list[FeatureName]:
    """Read the names of a model's features.

    Parameters
    ----------
    names : sequence of str
        For example ``"visual__p90__0412"``.

    Returns
    -------
    list of FeatureName
        In the same order.
    """
    return [FeatureName.parse(name) for name in names]
