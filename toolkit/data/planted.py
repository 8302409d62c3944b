"""The features of a generated utterance, with known effects of class and speaker.

The bytes depend on seed, utterance and modality alone, on every platform and under every
numpy. So there are only operations that IEEE 754 rounds alike everywhere: no sum whose order
depends on the width of vectors, no logarithm, and no distribution of numpy.random.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from math import prod, sqrt
from types import MappingProxyType

import numpy as np
from numpy.random import SFC64, SeedSequence
from numpy.typing import NDArray

Frames = NDArray[np.float32]

# Three independent cues separate four classes: the corners of a tetrahedron.
_CUES = {
    "anger": (1.0, -1.0, 1.0),
    "sadness": (-1.0, -1.0, -1.0),
    "happiness": (1.0, 1.0, -1.0),
    "neutral": (-1.0, 1.0, 1.0),
}
CLASSES = tuple(_CUES)
"""Names of the generated classes; the code of each is its position."""

_BELLS_AT_ONCE = 32_768  # as many as stay in the cache of a core

# Sizes relative to the noise of one frame or, for a fixed-size feature, of one value.
_SHARED_DOUBT = 0.6  # part of the doubt about an utterance that all modalities share
_PERSON = 0.8  # the constant part of a person's features
_PERSONAL_STYLE = 0.9  # differences between people in showing a class
_SESSION = 0.2  # room and equipment, the same for both partners
_DIALOGUE = 0.3  # topic and mood, the same for both partners
_UTTERANCE = 0.3  # the constant part of an utterance, independent of its class
_INERTIA = 0.5  # weight of the frame before
_PEAK = 2.0  # height of a rare frame, independent of the class
_RARE = 1.4  # the bell above which a frame is rare


@dataclass(frozen=True, slots=True)
class _PlantedBlock:
    """A range of dimensions in which the class moves one property of the sequence.

    - kind: ``"level"`` (of all frames), ``"delta"`` (similarity of a frame to the one before),
      ``"peaks"`` (height of rare frames), ``"end"`` (level of the last third), ``"spread"``
      (size of the noise) or ``"slope"`` (drift over time).
    - gain: Size of the movement, relative to the noise.
    - doubt: Standard deviation of each class cue in this block, where the classes lie 2 apart:
      the larger, the less informative the block, whatever its width.
    - shown_by: Pooled statistics that show it best.
    """

    kind: str
    share: tuple[float, float]
    gain: float
    doubt: float
    shown_by: tuple[str, ...]

    def dimensions(self, n_dims: int) -> slice:
        """Return the dimensions of the block."""
        return slice(*(round(share * n_dims) for share in self.share))


PLANTED: Mapping[str, tuple[_PlantedBlock, ...]] = MappingProxyType(
    {
        "text": (_PlantedBlock("level", (0.0, 0.25), 0.5, 1.25, ("value",)),),
        "audio": (
            _PlantedBlock("level", (0.0, 0.25), 0.4, 3.0, ("mean", "p50")),
            _PlantedBlock("delta", (0.25, 0.375), 0.2, 2.7, ("delta_mean_abs", "lag1")),
            _PlantedBlock("peaks", (0.375, 0.5), 0.8, 2.7, ("p95", "max", "skew")),
            _PlantedBlock("end", (0.5, 0.625), 0.5, 2.7, ("mean_end", "slope")),
        ),
        "visual": (
            _PlantedBlock("spread", (0.0, 0.25), 0.2, 3.8, ("std", "p05", "p95")),
            _PlantedBlock("slope", (0.25, 0.5), 0.5, 3.8, ("slope", "mean_start", "mean_end")),
        ),
    }
)
"""The blocks of each modality; all other dimensions depend on the speaker only."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One generated utterance before its features, with names like those of IEMOCAP."""

    name: str
    speaker: str
    session: str
    dialogue: str
    label: str
    n_frames: int


def random_stream(seed: int, *names: str) -> SFC64:
    """Open the stream of random bits of a seed and names."""
    digest = sha256("\x1f".join((str(seed), *names)).encode()).digest()
    return SFC64(SeedSequence(int.from_bytes(digest[:16], "little")))


def _draw_bells(stream: SFC64, shape: tuple[int, ...]) -> Frames:
    """Draw nearly normal numbers between -3.45 and 3.45: sums of four random bytes, scaled."""
    size = prod(shape)
    bells = np.empty(size + size % 2, dtype=np.float32)
    low_bytes, low_pairs = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
    deviation = np.float32(sqrt((256**2 - 1) / 3))
    for start in range(0, len(bells), _BELLS_AT_ONCE):
        part = bells[start : start + _BELLS_AT_ONCE]
        # Sums of neighbouring bytes, four in a word of 64 bits, then of neighbouring pairs.
        sums = stream.random_raw(len(part) // 2)
        for n_bits, low in ((8, low_bytes), (16, low_pairs)):
            high = (sums >> np.uint64(n_bits)) & low
            sums &= low
            sums += high
        part[:] = sums.astype("<u8", copy=False).view("<u4")
        part -= np.float32(510)
        part /= deviation
    return bells[:size].reshape(shape)


def make_features(seed: int, modality: str, n_dims: int, utterance: Utterance) -> Frames:
    """Make the features of one utterance: (n_frames, n_dims), or (n_dims,) for text."""
    stream = random_stream(seed, "features", modality, utterance.name)
    movements = _move(stream, seed, modality, n_dims, utterance)
    still = (
        np.float32(_PERSON) * _trait(seed, modality, n_dims, utterance.speaker)
        + np.float32(_SESSION) * _trait(seed, modality, n_dims, utterance.session)
        + np.float32(_DIALOGUE) * _trait(seed, modality, n_dims, utterance.dialogue)
        + np.float32(_UTTERANCE) * _draw_bells(stream, (n_dims,))
    )
    if modality == "text":
        features = _draw_bells(stream, (n_dims,))
    else:
        features = _draw_noise(stream, utterance.n_frames, n_dims, movements)
    features += still
    for kind, dims, movement in movements:
        if kind == "level":
            features[..., dims] += movement
        elif kind == "end":
            features[:, dims] += _last_third(utterance.n_frames)[:, None] * movement
        elif kind == "slope":
            features[:, dims] += _drift(utterance.n_frames)[:, None] * movement
        elif kind == "peaks":
            rare = _rare_frames(stream, utterance.n_frames, len(movement))
            features[:, dims] += rare * np.clip(movement + _PEAK, 0, None)
    return features


def _draw_noise(
    stream: SFC64, n_frames: int, n_dims: int, movements: list[tuple[str, slice, Frames]]
) -> Frames:
    """Draw noise in which each frame resembles the one before."""
    inertia = np.full(n_dims, _INERTIA, dtype=np.float32)
    size = np.ones(n_dims, dtype=np.float32)
    for kind, dims, movement in movements:
        if kind == "delta":
            inertia[dims] = np.clip(movement, -0.9, 0.9)
        elif kind == "spread":
            size[dims] = np.clip(movement + np.float32(1), 0.2, None)
    bells = _draw_bells(stream, (n_frames + 1, n_dims))
    # Squares that add up to 1 keep the spread, whatever the inertia.
    noise: Frames = bells[1:] * (size * np.sqrt(1 - inertia * inertia))
    noise += bells[:-1] * (size * inertia)
    return noise


def _last_third(n_frames: int) -> Frames:
    """Return 1 in the last third, and before it the negative constant that makes the mean 0."""
    start = 2 * n_frames // 3
    shape = np.full(n_frames, -(n_frames - start) / start, dtype=np.float32)
    shape[start:] = 1
    return shape


def _drift(n_frames: int) -> Frames:
    """Return a straight line from -1 to 1."""
    return (np.arange(n_frames) * (2 / (n_frames - 1)) - 1).astype(np.float32)


def _rare_frames(stream: SFC64, n_frames: int, n_dims: int) -> Frames:
    """Return peaks in about one frame of twelve, less their share, so that the mean is 0."""
    rare = _draw_bells(stream, (n_frames, n_dims)) > _RARE
    share = rare.sum(axis=0, dtype=np.int64) / n_frames
    rare_less_share: Frames = (rare - share).astype(np.float32)
    return rare_less_share


@lru_cache(maxsize=1024)
def _trait(seed: int, modality: str, n_dims: int, name: str) -> Frames:
    """Draw the constant part of the features of a speaker, session or dialogue."""
    return _draw_bells(random_stream(seed, "trait", modality, name), (n_dims,))


@lru_cache(maxsize=1024)
def _pattern(seed: int, modality: str, n_dims: int, kind: str, speaker: str) -> Frames:
    """Draw the movement of each dimension with each cue: a common and a personal part."""
    names = ("pattern", modality, kind)
    pattern = _draw_bells(random_stream(seed, *names), (3, n_dims))
    personal = _draw_bells(random_stream(seed, *names, speaker), (3, n_dims))
    pattern += np.float32(_PERSONAL_STYLE) * personal
    pattern /= np.float32(sqrt(3))
    return pattern


@lru_cache(maxsize=8)
def _shared_doubt(seed: int, name: str) -> Frames:
    """Draw the noise of an utterance's class cues that all modalities share."""
    return np.float32(_SHARED_DOUBT) * _draw_bells(random_stream(seed, "doubt", name), (3,))


def _move(
    stream: SFC64, seed: int, modality: str, n_dims: int, utterance: Utterance
) -> list[tuple[str, slice, Frames]]:
    """Draw the movement of each block: the cues of the class with noise, times its pattern."""
    cues = np.asarray(_CUES[utterance.label], dtype=np.float32)
    cues = cues + _shared_doubt(seed, utterance.name)
    movements = []
    for block in PLANTED[modality]:
        own_doubt = np.float32(sqrt(block.doubt**2 - _SHARED_DOUBT**2))
        shown = cues + own_doubt * _draw_bells(stream, (3,))
        dims = block.dimensions(n_dims)
        pattern = _pattern(seed, modality, n_dims, block.kind, utterance.speaker)[:, dims]
        moved = shown[0] * pattern[0] + shown[1] * pattern[1] + shown[2] * pattern[2]
        movements.append((block.kind, dims, np.float32(block.gain) * moved))
    return movements
