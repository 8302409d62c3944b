"""Plain numpy definitions of all statistics, which compiled kernels follow; names and policies.

A statistic summarises the frames ``x_0 .. x_{T-1}`` of one dimension by one number. Time runs
from 0 to 1 over the sequence, so that a slope means the same for short and long recordings.
A dimension whose maximum equals its minimum is constant: its spread, shape, trend, share and
crossings are 0 by definition, not by luck of rounding. All sums are taken in float64 over the
differences to the first frame, which stays exact where the offset dwarfs the spread. The
selection follows what speech research calls functionals [1]_.

References
----------
.. [1] F. Eyben et al., "openSMILE: the Munich versatile and fast open-source audio feature
   extractor", ACM Multimedia 2010.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Lower-case words joined by single underscores, so that two underscores part the name and
# both boosters accept it (XGBoost rejects brackets, LightGBM rewrites white space).
WORD = r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*"
_EXPECTED = "lower-case words of letters and digits joined by single underscores"
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
                raise ValueError(f"A feature name cannot hold {part!r}; expected {_EXPECTED}.")
        if self.dimension < 0:
            raise ValueError(f"A dimension counts from 0, got {self.dimension}.")

    def __str__(self) -> str:
        return f"{self.modality}__{self.statistic}__{self.dimension:04d}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name back; ValueError where it is none.

        Parameters
        ----------
        text : str
            A name as ``str()`` writes it.

        Returns
        -------
        FeatureName
            The name with ``str(name) == text``.
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
        modality, statistics : str, sequence of str
            As in the names.
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


Floats = NDArray[np.float64]


class Frames:
    """Finite frames of one sequence, and the quantities that several statistics share."""

    def __init__(self, frames: ArrayLike) -> None:
        self.frames: Floats = np.asarray(frames, dtype=np.float64)
        self.check_shape(self.frames)
        self.n_frames = len(self.frames)

    @staticmethod
    def check_shape(frames: NDArray[Any]) -> None:
        """Refuse what is not at least one frame of at least one dimension."""
        if frames.ndim != 2 or 0 in frames.shape:
            raise ValueError(
                f"Frames have shape {frames.shape}; expected (n_frames, n_dims) with at least "
                "one of each."
            )

    @cached_property
    def ordered(self) -> Floats:
        """Frames sorted along time, one sort for all order statistics."""
        return np.sort(self.frames, axis=0)

    @cached_property
    def constant(self) -> NDArray[np.bool_]:
        """Whether the maximum of a dimension equals its minimum."""
        return np.asarray(self.frames.max(axis=0) == self.frames.min(axis=0))

    @cached_property
    def exponent(self) -> NDArray[np.intc]:
        """Power of two above the largest magnitude of each dimension.

        Dividing by it is exact and keeps fourth powers inside float64 whatever the unit.
        """
        return np.asarray(np.frexp(np.abs(self.frames).max(axis=0))[1])

    @cached_property
    def shifted(self) -> Floats:
        """Frames in units of ``2 ** exponent``, less the first frame."""
        scaled = np.ldexp(self.frames, -self.exponent)
        return np.asarray(scaled - scaled[0])

    @cached_property
    def deviations(self) -> Floats:
        """`shifted` less its mean."""
        return np.asarray(self.shifted - self.shifted.mean(axis=0))

    @cached_property
    def power(self) -> Floats:
        """Mean squared deviation, 1 where constant so that it can be divided by."""
        return np.where(self.constant, 1.0, (self.deviations**2).mean(axis=0))

    @cached_property
    def deltas(self) -> Floats:
        """Differences of successive frames; one of 0 where there is a single frame."""
        if self.n_frames == 1:
            return np.zeros_like(self.shifted)
        return np.diff(self.shifted, axis=0)

    @cached_property
    def time(self) -> Floats:
        """Time of each frame, from 0 to 1."""
        return np.arange(self.n_frames) / max(self.n_frames - 1, 1)

    @cached_property
    def signs(self) -> NDArray[np.int8]:
        """Side of the mean; 0 within a millionth of the range, which rounding could turn."""
        extent = self.shifted.max(axis=0) - self.shifted.min(axis=0)
        side = np.sign(self.deviations).astype(np.int8)
        return np.where(np.abs(self.deviations) <= 1e-6 * extent, np.int8(0), side)

    @cached_property
    def slope_weights(self) -> Floats:
        """Weights whose sum with the frames is the least-squares slope over time from 0 to 1.

        They are ``(t - mean t) / sum (t - mean t)^2``; a single frame has slope 0.
        """
        if self.n_frames == 1:
            return np.zeros(1)
        time = np.linspace(0, 1, self.n_frames) - 0.5
        return np.asarray(time / (time @ time))

    @cached_property
    def curvature_weights(self) -> Floats:
        """Weights whose sum with the frames is the quadratic coefficient over time from 0 to 1.

        They are the third row of the pseudoinverse of ``[1, t, t^2]``; fewer than three frames
        have curvature 0.
        """
        if self.n_frames < 3:
            return np.zeros(self.n_frames)
        # t^2 less its projection on 1 and t: with time centred, the odd part drops out.
        time = np.linspace(0, 1, self.n_frames) - 0.5
        bowl = time**2 - (time**2).mean()
        return np.asarray(bowl / (bowl @ bowl))

    @staticmethod
    def interpolate_rank(ordered: Floats, share: float) -> Floats:
        """Percentile by linear interpolation, at rank ``share * (n - 1)`` of sorted rows."""
        rank = share * (len(ordered) - 1)
        lower = int(rank)
        upper = min(lower + 1, len(ordered) - 1)
        return np.asarray(ordered[lower] + (rank - lower) * (ordered[upper] - ordered[lower]))

    def third(self, number: int) -> slice:
        """Frames of third 0, 1 or 2; at least one, even of fewer than three."""
        begin = number * self.n_frames // 3
        return slice(begin, max((number + 1) * self.n_frames // 3, begin + 1))

    def mean_third(self, number: int) -> Floats:
        """Give the mean of one third."""
        part = self.shifted[self.third(number)]
        return np.asarray(self.frames[0] + self.unscaled(part.mean(axis=0)))

    def std_third(self, number: int) -> Floats:
        """Give the standard deviation of one third."""
        part = self.deviations[self.third(number)]
        return self.unless_constant(self.unscaled(part.std(axis=0)))

    def unscaled(self, values: Floats) -> Floats:
        """Bring what was computed on `shifted` back to the unit of the frames."""
        return np.asarray(np.ldexp(values, self.exponent))

    def unless_constant(self, values: Floats) -> Floats:
        """Set values to 0 in constant dimensions."""
        return np.where(self.constant, 0.0, values)


_Statistic = Callable[[NDArray[np.float64]], ArrayLike]
"""A function of frames ``(n_frames, n_dims)`` that gives ``(n_dims,)``."""

PERCENTILES = MappingProxyType(
    {f"p{percent:02d}": percent / 100 for percent in (1, 5, 10, 25, 50, 75, 90, 95, 99)}
)
"""Name of each percentile and the share of frames below it."""

THIRDS = MappingProxyType({"start": 0, "middle": 1, "end": 2})
"""Name of each third of the sequence and its number."""


def _percentile(x: Frames, share: float) -> Floats:
    return Frames.interpolate_rank(x.ordered, share)


def _crossing_rate(x: Frames) -> Floats:
    # A zero takes the sign before it; sides that are still 0 stand before any crossing.
    latest = np.maximum.accumulate(
        np.where(x.signs != 0, np.arange(x.n_frames)[:, None], 0), axis=0
    )
    sides = np.take_along_axis(x.signs, latest, axis=0)
    crossings = (sides[1:] * sides[:-1] < 0).sum(axis=0)
    return x.unless_constant(crossings / max(x.n_frames - 1, 1))


_DEFINITIONS: dict[str, Callable[[Frames], Floats]] = {
    "mean": lambda x: np.asarray(x.frames[0] + x.unscaled(x.shifted.mean(axis=0))),
    "std": lambda x: x.unless_constant(x.unscaled(np.sqrt(x.power))),
    "min": lambda x: np.asarray(x.frames.min(axis=0)),
    "max": lambda x: np.asarray(x.frames.max(axis=0)),
    "range": lambda x: np.asarray(x.frames.max(axis=0) - x.frames.min(axis=0)),
    "first": lambda x: np.asarray(x.frames[0]),
    "last": lambda x: np.asarray(x.frames[-1]),
    **{name: partial(_percentile, share=share) for name, share in PERCENTILES.items()},
    "iqr": lambda x: _percentile(x, 0.75) - _percentile(x, 0.25),
    "skew": lambda x: x.unless_constant((x.deviations**3).mean(axis=0) / x.power**1.5),
    "kurtosis": lambda x: x.unless_constant((x.deviations**4).mean(axis=0) / x.power**2 - 3.0),
    "slope": lambda x: x.unless_constant(x.unscaled(x.slope_weights @ x.deviations)),
    "curvature": lambda x: x.unless_constant(x.unscaled(x.curvature_weights @ x.deviations)),
    "argmax_position": lambda x: np.asarray(x.time[x.frames.argmax(axis=0)]),
    "argmin_position": lambda x: np.asarray(x.time[x.frames.argmin(axis=0)]),
    "delta_mean_abs": lambda x: x.unscaled(np.abs(x.deltas).mean(axis=0)),
    "delta_std": lambda x: x.unscaled(x.deltas.std(axis=0)),
    "delta_max_abs": lambda x: x.unscaled(np.abs(x.deltas).max(axis=0)),
    "delta_p90_abs": lambda x: x.unscaled(
        Frames.interpolate_rank(np.sort(np.abs(x.deltas), axis=0), 0.9)
    ),
    "lag1": lambda x: x.unless_constant(
        (x.deviations[1:] * x.deviations[:-1]).sum(axis=0) / (x.power * x.n_frames)
    ),
    "share_above_mean": lambda x: x.unless_constant((x.signs > 0).mean(axis=0)),
    "crossing_rate": _crossing_rate,
    **{f"mean_{name}": partial(Frames.mean_third, number=k) for name, k in THIRDS.items()},
    **{f"std_{name}": partial(Frames.std_third, number=k) for name, k in THIRDS.items()},
}
BUILT_IN = tuple(_DEFINITIONS)
"""Names of the statistics that come with the toolkit, in their order."""


_STATISTICS: dict[str, Callable[[Any], ArrayLike]] = {**_DEFINITIONS}
STATISTICS: Mapping[str, Callable[[Any], ArrayLike]] = MappingProxyType(_STATISTICS)
"""Every known statistic: a function of :class:`Frames`, or a registered one of an array."""

VALUE = "value"
"""Name of the only statistic of files without a time axis: the number itself."""

TFIDF, HASHING = "tfidf", "hashing"
"""Names in place of a statistic in features of transcripts."""

UNTIMED = frozenset({VALUE, TFIDF, HASHING})
"""Names of features that are pooled from no frames."""

PRESETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "minimal": ("mean",),
        "basic": ("mean", "max", "std", "p25", "p50", "p75", "delta_mean_abs"),
        "rich": (
            *("mean", "std", "min", "max", "p05", "p25", "p50", "p75", "p95"),
            *("skew", "kurtosis", "slope", "delta_mean_abs", "delta_std", "lag1"),
            *("mean_start", "mean_middle", "mean_end"),
        ),
        "full": BUILT_IN,
    }
)
"""Named choices of statistics, from one to all that come with the toolkit."""


def resolve_statistics(spec: str | Sequence[str]) -> tuple[str, ...]:
    """Resolve presets and names, or a text of them with commas, to names of statistics.

    They are keys of :data:`STATISTICS`, in the order of `spec`. No name, an unknown one and one
    that is asked for twice raise ValueError.
    """
    words = spec.split(",") if isinstance(spec, str) else list(spec)
    names: list[str] = []
    for word in (word.strip() for word in words):
        names.extend(PRESETS.get(word, (word,)))
    if unknown := [name for name in names if name not in STATISTICS]:
        near = difflib.get_close_matches(unknown[0], [*PRESETS, *STATISTICS], n=1)
        raise ValueError(
            f"Unknown statistics {unknown}{f'; did you mean {near[0]!r}' if near else ''}; "
            f"expected a preset ({', '.join(PRESETS)}) or names among {', '.join(STATISTICS)}."
        )
    if not names:
        raise ValueError("No statistics given; expected at least one, for example 'mean'.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Statistics given twice: {', '.join(twice)}; name each once.")
    return tuple(names)


def register_statistic(name: str, function: _Statistic) -> None:
    """Register a statistic of one's own by name, for this process.

    Its name then works like that of any other statistic. It runs as plain Python. Its code,
    and the values that it closes over or has as defaults, are part of the key under which
    tables are kept: change them, and the corpus is pooled again.

    Parameters
    ----------
    name : str
        Lower-case words joined by single underscores, not yet taken.
    function : callable
        Takes finite frames of shape (n_frames, n_dims) in float64, which it must not change,
        and returns one number per dimension, an array of shape (n_dims,). It must depend on
        the frames and its own code alone.

    Raises
    ------
    ValueError
        If the name is not well formed or already taken.

    Examples
    --------
    >>> def energy(frames):
    ...     return (frames**2).mean(axis=0)
    >>> register_statistic("energy", energy)
    >>> compute_statistics([[1.0, 2.0], [3.0, 4.0]], ["energy", "max"]).tolist()
    [[5.0, 10.0], [3.0, 4.0]]
    >>> unregister_statistic("energy")
    """
    if not re.fullmatch(WORD, name):
        raise ValueError(f"A statistic cannot be named {name!r}; expected {_EXPECTED}.")
    if name in STATISTICS or name in PRESETS or name in UNTIMED:
        raise ValueError(f"The name {name!r} is already taken; choose another.")
    _STATISTICS[name] = function


def unregister_statistic(name: str) -> None:
    """Remove a registered statistic.

    Parameters
    ----------
    name : str
        The name given to it; those that come with the toolkit stay.

    Raises
    ------
    ValueError
        If no such statistic was registered.
    """
    if name in BUILT_IN or name not in STATISTICS:
        raise ValueError(f"No statistic was registered as {name!r}.")
    del _STATISTICS[name]


def compute_statistics(frames: ArrayLike, statistics: Sequence[str]) -> NDArray[np.float64]:
    """Summarise finite frames (n_frames, n_dims) by the plain definitions, a row per statistic.

    The result has shape (len(statistics), n_dims) in float64; larger numbers are infinite.
    """
    shared = Frames(frames)
    rows = np.empty((len(statistics), shared.frames.shape[1]))
    with np.errstate(over="ignore", under="ignore"):
        for row, name in zip(rows, statistics, strict=True):
            given = shared if name in _DEFINITIONS else shared.frames
            numbers = np.asarray(STATISTICS[name](given))
            if numbers.shape != row.shape:
                raise ValueError(
                    f"The registered statistic {name!r} gave shape {numbers.shape} for frames "
                    f"of shape {shared.frames.shape}; expected {row.shape}."
                )
            row[:] = numbers
    return rows


FramesPolicy = Literal["refuse", "drop", "interpolate"]
"""Ways to treat frames that are not finite; the choice is declared before pooling."""


class NonFiniteError(ValueError):
    """Frames hold NaN or infinity where they may not."""


@dataclass(frozen=True, slots=True, eq=False)
class _CleanFrames:
    """Finite frames (n_frames, n_dims), possibly none, and counts of those changed."""

    frames: NDArray[np.floating[Any]]
    n_dropped: int = 0
    n_interpolated: int = 0


def check_frames_policy(policy: str) -> None:
    """Refuse an unknown policy."""
    if policy not in get_args(FramesPolicy):
        raise ValueError(
            f"Unknown policy {policy!r} for frames that are not finite; expected one of "
            f"{', '.join(get_args(FramesPolicy))}."
        )


def clean_frames(
    frames: NDArray[np.floating[Any]],
    policy: FramesPolicy = "refuse",
    missing: Literal["refuse", "allow"] = "refuse",
) -> _CleanFrames:
    """Apply the declared policies to frames (n_frames, n_dims) that hold NaN or infinity.

    A dimension without any finite frame is NaN throughout: its features will be missing, and
    the other dimensions stay.

    - policy: ``drop`` removes the whole frame, and the frames around it become neighbours.
      ``interpolate`` fills each dimension linearly over the frame number from its finite frames
      and holds its ends. ``refuse`` raises NonFiniteError, which names the first such frame.
    - missing: Whether ``refuse`` takes dimensions without any finite frame as missing.
    """
    check_frames_policy(policy)
    finite = np.isfinite(frames)
    if finite.all():
        return _CleanFrames(frames)
    alive: NDArray[np.bool_] = np.any(finite, axis=0)
    excused = alive if policy != "refuse" or missing == "allow" else np.ones_like(alive)
    whole: NDArray[np.bool_] = np.all(finite[:, excused], axis=1)
    n_broken = int((~whole).sum())
    if policy == "refuse" and n_broken:
        frame = int(np.argmin(whole))
        dimension = int(np.argmin(finite[frame] | ~excused))
        raise NonFiniteError(
            f"frame {frame}, dimension {dimension} is {frames[frame, dimension]} (frames that "
            f"are not finite: {n_broken} of {len(frames)}); expected finite numbers. "
            "Write the features again, or declare what becomes of such frames: --frames drop "
            "or interpolate (in Python frames='drop')."
        )
    if not alive.any():
        return _CleanFrames(frames[:0], n_dropped=len(frames))
    filled = np.where(alive, frames, np.nan).astype(frames.dtype, copy=False)
    if policy == "drop":
        return _CleanFrames(np.ascontiguousarray(filled[whole]), n_dropped=n_broken)
    positions = np.arange(len(frames))
    for dimension in np.flatnonzero(alive & ~finite.all(axis=0)).tolist():
        mask = finite[:, dimension]
        filled[~mask, dimension] = np.interp(
            positions[~mask], positions[mask], frames[mask, dimension]
        )
    return _CleanFrames(filled, n_interpolated=n_broken)
