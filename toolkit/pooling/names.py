"""Names of pooled features: modality, statistic and dimension."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

# Lower-case words joined by single underscores, so that two underscores part the name and
# both boosters accept it (XGBoost rejects brackets, LightGBM rewrites white space).
WORD = r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*"
_NAME = re.compile(rf"({WORD})__({WORD})__([0-9]{{4,}})")


@dataclass(frozen=True, slots=True, order=True)
class FeatureName:
    """One column of a feature table.

    Parameters
    ----------
    modality : str
        Lower-case words joined by single underscores, for example ``"visual"``.
    statistic : str
        Name of a statistic, or ``"value"`` for files without a time axis.
    dimension : int
        Position in the frames, from 0.

    Examples
    --------
    >>> str(FeatureName("visual", "p90", 412))
    'visual__p90__0412'
    >>> FeatureName.parse("body_pose__delta_std__0003").statistic
    'delta_std'
    """

    modality: str
    statistic: str
    dimension: int

    def __post_init__(self) -> None:
        for part in (self.modality, self.statistic):
            if not re.fullmatch(WORD, part):
                raise ValueError(
                    f"A feature name cannot hold {part!r}; expected lower-case words of "
                    "letters and digits joined by single underscores."
                )
        if self.dimension < 0:
            raise ValueError(f"A dimension counts from 0, got {self.dimension}.")

    def __str__(self) -> str:
        return f"{self.modality}__{self.statistic}__{self.dimension:04d}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name back.

        Parameters
        ----------
        text : str
            A name as ``str()`` writes it.

        Returns
        -------
        FeatureName
            The name with ``str(name) == text``.

        Raises
        ------
        ValueError
            If the text is not of the form ``modality__statistic__dimension``.
        """
        match = _NAME.fullmatch(text)
        name = cls(match[1], match[2], int(match[3])) if match else None
        if name is None or str(name) != text:
            raise ValueError(
                f"{text!r} is not a feature name; expected modality__statistic__dimension, "
                "for example 'visual__p90__0412'."
            )
        return name

    @classmethod
    def list_columns(
        cls, modality: str, statistics: Sequence[str], n_dims: int
    ) -> tuple[str, ...]:
        """Name the columns of a table, statistic by statistic.

        Parameters
        ----------
        modality : str
            Name of the modality.
        statistics : sequence of str
            Names of statistics.
        n_dims : int
            Number of dimensions of a frame.

        Returns
        -------
        tuple of str
            One name per statistic and dimension.
        """
        # One checked name per statistic; the dimensions only count up.
        stems = [str(cls(modality, statistic, 0))[:-4] for statistic in statistics]
        return tuple(f"{stem}{dimension:04d}" for stem in stems for dimension in range(n_dims))
