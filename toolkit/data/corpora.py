"""A generated corpus in the layout of IEMOCAP, with known effects of class and speaker.

``PLANTED`` lists the effects, of several kinds. The features depend on seed, utterance and
modality alone, to the byte on every platform and under every numpy. So there are only
operations that IEEE 754 rounds alike everywhere: no sum whose order depends on the width of
vectors, no logarithm, and no distribution of numpy.random.
"""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from math import prod, sqrt
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import numpy as np
from numpy.random import SFC64, SeedSequence
from numpy.typing import NDArray

from toolkit.data.feature_files import NAMED_MODALITIES
from toolkit.files import write_text

CORPUS_VERSION = "3"
"""Changes whenever the same call would write other bytes."""

GENERATED_MARKER = "generated.json"
"""Name of the file that marks a table as generated."""

# The four classes of the recordings handed out with the exercise, and of all IEMOCAP, where
# excited counts as happy.
_COUNTS = {False: (328, 308, 180, 520), True: (1103, 1084, 1636, 1708)}
_DIMS = {
    False: {"visual": 64, "audio": 128, "text": 768},
    True: {"visual": 2048, "audio": 128, "text": 768},
}
_FRAMES = {False: (20, 120), True: (20, 300)}
_COLUMNS = {modality: column for column, modality in NAMED_MODALITIES.items()}
# Utterances relative to the other speakers: the busiest has twice as many as the quietest.
_SPEAKERS = {"F01": 21, "M01": 19, "F02": 16, "M02": 20, "F03": 22}
_SPEAKERS |= {"M03": 26, "F04": 15, "M04": 14, "F05": 19, "M05": 28}
_FEWEST_UTTERANCES = 40
_FEWEST_DIMS = 8
_SHARE_WITHOUT_VISUAL = 0.03
_PERCENT_IN_MOOD = 60  # utterances in a dialogue of their own class's mood

_Frames = NDArray[np.float32]

# Three independent cues separate four classes: the corners of a tetrahedron.
_CUES = {
    "angry": (1.0, -1.0, 1.0),
    "sad": (-1.0, -1.0, -1.0),
    "happy": (1.0, 1.0, -1.0),
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
      (size of the noise), ``"slope"`` (drift over time), ``"threshold"`` (distance from the
      middle, on either side) or ``"product"`` (of two dimensions that show nothing alone).
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
        "text": (
            _PlantedBlock("level", (0.0, 0.25), 0.5, 1.4, ("value",)),
            _PlantedBlock("threshold", (0.25, 0.375), 2.0, 1.3, ("value",)),
            _PlantedBlock("product", (0.375, 0.75), 2.0, 1.2, ("value",)),
        ),
        "audio": (
            _PlantedBlock("level", (0.0, 0.25), 0.4, 3.0, ("mean", "p50")),
            _PlantedBlock("delta", (0.25, 0.375), 0.2, 2.6, ("delta_mean_abs", "lag1")),
            _PlantedBlock("peaks", (0.375, 0.5), 0.8, 2.6, ("p95", "max", "skew")),
            _PlantedBlock("end", (0.5, 0.625), 0.5, 2.6, ("mean_end", "slope")),
        ),
        "visual": (
            _PlantedBlock("spread", (0.0, 0.25), 0.2, 2.6, ("std", "p05", "p95")),
            _PlantedBlock("slope", (0.25, 0.5), 0.5, 2.4, ("slope", "mean_start", "mean_end")),
        ),
    }
)
"""The blocks of each modality; all other dimensions depend on the speaker only."""


@dataclass(frozen=True, slots=True)
class _Utterance:
    """One generated utterance before its features, with names like those of IEMOCAP."""

    name: str
    speaker: str
    session: str
    dialogue: str
    label: str
    n_frames: int


def make_corpus(
    folder: Path | str,
    *,
    full: bool = False,
    n_utterances: int | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a generated corpus in the layout of IEMOCAP.

    Ten speakers talk in pairs in five sessions; the classes angry, sad, happy and neutral have
    codes 0 to 3. About 3 % of the visual cells are empty. The features identify a person, and
    more faintly a dialogue. The same arguments give the same bytes everywhere.

    Parameters
    ----------
    folder : Path or str
        Folder to write; if it exists, it must be empty.
    full : bool, default=False
        Write 5,531 utterances of 20 to 300 frames and 2,048 visual dimensions (about 7 GB)
        rather than 1,336 of 20 to 120 and 64 (about 75 MB).
    n_utterances : int, optional
        Number of utterances, at least 40, in the same proportions.
    dims : mapping of str to int, optional
        Number of dimensions, at least 8, of any of visual, audio and text.
    seed : int, default=0
        Seed of all features; the numbers of utterances do not depend on it.
    progress : callable, optional
        Called after each utterance with the number written and their total.

    Returns
    -------
    Path
        The table; ``generated.json`` beside it lists the classes and the planted effects.

    Raises
    ------
    FileExistsError
        If `folder` exists and is not empty; nothing is overwritten.
    ValueError
        If there would be too few utterances or dimensions.
    """
    folder = Path(folder)
    n_dims = _check_dims({**_DIMS[full], **(dims or {})})
    utterances = _compose(full, n_utterances, seed)
    _check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed at the end, so that a corpus is complete or absent.
    draft = folder.absolute().with_name(f".{folder.absolute().name}.{uuid4().hex}")
    draft.mkdir()
    try:
        rows = _write_features(draft, utterances, n_dims, seed, progress)
        names = "file_name_list", "speakers", *_COLUMNS.values(), "emotion_labels", "label_name"
        with (draft / "dataset.csv").open("w", encoding="utf-8", newline="") as file:
            # The original has blanks after commas of its first line, and no names of classes.
            file.write(", ".join(names) + "\n")
            csv.writer(file, lineterminator="\n").writerows(rows)
        _write_marker(draft / GENERATED_MARKER, n_dims, len(utterances), seed)
        _check_free(folder)  # again, since writing takes minutes
        if folder.exists():  # perhaps the working folder, so it is not replaced
            for name in ("features", GENERATED_MARKER, "dataset.csv"):
                (draft / name).rename(folder / name)
            draft.rmdir()
        else:
            draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder / "dataset.csv"


def _check_dims(dims: Mapping[str, int]) -> dict[str, int]:
    if unknown := sorted(dims.keys() - PLANTED.keys()):
        raise ValueError(
            f"Unknown modalities {unknown} in dims; choose among {sorted(PLANTED)}."
        )
    for modality, n_dims in dims.items():
        if n_dims < _FEWEST_DIMS:
            raise ValueError(
                f"Modality {modality!r} got {n_dims} dimensions; expected at least "
                f"{_FEWEST_DIMS}, to hold what is planted in it."
            )
    return dict(dims)


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists already, and nothing is overwritten; name a new or empty folder, "
            "or remove it first."
        )


def _compose(full: bool, n_utterances: int | None, seed: int) -> list[_Utterance]:
    """Draw speaker, class and dialogue of each utterance, in the order of the recordings."""
    counts: Sequence[int] = _COUNTS[full]
    if n_utterances is not None:
        if n_utterances < _FEWEST_UTTERANCES:
            raise ValueError(
                f"n_utterances is {n_utterances}; expected at least {_FEWEST_UTTERANCES}, so "
                "that every speaker and every class is there."
            )
        counts = _apportion(n_utterances, counts)
    n_dialogues = min(max(sum(counts) // 100, len(CLASSES)), 28)
    labels = _apportion_classes(counts)
    stream = _random_stream(seed, "dialogues")
    utterances = []
    for session in range(1, 6):
        dialogues = _name_dialogues(session, n_dialogues)
        # Sorted by dialogue, then by random bits: both partners take turns.
        turns = [
            (_draw_dialogue(stream, n_dialogues, label), stream.random_raw(), speaker, label)
            for speaker in (f"F0{session}", f"M0{session}")
            for label in labels[speaker]
        ]
        numbers = Counter[tuple[int, str]]()
        for dialogue, _, speaker, label in sorted(turns):
            # Numbers are missing, as where the annotators did not agree on one class.
            numbers[dialogue, speaker] += 1 + int(stream.random_raw()) % 3
            name = f"{dialogues[dialogue]}_{speaker[0]}{numbers[dialogue, speaker]:03d}"
            utterances.append(
                _Utterance(
                    name,
                    speaker,
                    f"Session{session}",
                    dialogues[dialogue],
                    CLASSES[label],
                    _draw_length(_random_stream(seed, "frames", name), *_FRAMES[full]),
                )
            )
    return utterances


def _apportion_classes(counts: Sequence[int]) -> dict[str, list[int]]:
    """List the classes of each speaker; some people are angrier than others."""
    labels: dict[str, list[int]] = {speaker: [] for speaker in _SPEAKERS}
    for label, total in enumerate(counts):
        moods = _random_stream(0, "moods", CLASSES[label])
        weights = [size * (7 + int(moods.random_raw()) % 7) for size in _SPEAKERS.values()]
        for speaker, n in zip(_SPEAKERS, _apportion(total, weights), strict=True):
            labels[speaker] += [label] * n
    return labels


def _apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Divide `total` by largest remainders; each gets 1 or more where there is enough."""
    least = int(total >= len(weights))
    rest = total - least * len(weights)
    shares = [divmod(rest * weight, sum(weights)) for weight in weights]
    n_left = rest - sum(share for share, _ in shares)
    first = sorted(range(len(weights)), key=lambda i: -shares[i][1])[:n_left]
    return [least + share + (i in first) for i, (share, _) in enumerate(shares)]


def _name_dialogues(session: int, n_dialogues: int) -> list[str]:
    """Name dialogues as IEMOCAP does: the person with the markers, then the scene."""
    scenes = [f"impro{i:02d}" for i in range(1, 9)]
    scenes += [f"script{i:02d}_{part}" for i in (1, 2, 3) for part in (1, 2)]
    names = [f"Ses0{session}{wearer}_{scene}" for scene in scenes for wearer in "FM"]
    return names[:n_dialogues]


def _draw_dialogue(stream: SFC64, n_dialogues: int, label: int) -> int:
    """Draw a dialogue, in more than half of the cases one in the mood of the class."""
    in_mood = int(stream.random_raw()) % 100 < _PERCENT_IN_MOOD
    candidates = range(label, n_dialogues, len(CLASSES)) if in_mood else range(n_dialogues)
    return candidates[int(stream.random_raw()) % len(candidates)]


def _draw_length(stream: SFC64, shortest: int, longest: int) -> int:
    """Draw a number of frames; long utterances are a little rarer."""
    share = int(stream.random_raw()) / 2**64
    return shortest + int((longest - shortest + 1) * share * (0.85 + 0.15 * share))


def _write_features(
    folder: Path,
    utterances: Sequence[_Utterance],
    n_dims: Mapping[str, int],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> list[list[str]]:
    """Write one file per utterance and modality; return the rows of the table."""
    n_missing = round(len(utterances) * _SHARE_WITHOUT_VISUAL)
    names = [utterance.name for utterance in utterances]
    names.sort(key=lambda name: int(_random_stream(seed, "missing", name).random_raw()))
    without_visual = set(names[:n_missing])
    for column in _COLUMNS.values():
        for session in sorted({utterance.session for utterance in utterances}):
            (folder / "features" / column / session).mkdir(parents=True)
    rows = []
    for n_done, utterance in enumerate(utterances, start=1):
        row = [utterance.name, utterance.speaker]
        for modality, column in _COLUMNS.items():
            if modality == "visual" and utterance.name in without_visual:
                row.append("")
                continue
            features = _make_features(seed, modality, n_dims[modality], utterance)
            path = f"features/{column}/{utterance.session}/{utterance.name}.npy"
            _write_npy(folder / path, features)
            row.append(f"/{path}")
        rows.append([*row, str(CLASSES.index(utterance.label)), utterance.label])
        if progress is not None:
            progress(n_done, len(utterances))
    return rows


def _write_npy(path: Path, array: _Frames) -> None:
    """Write like np.save, with a padding of the header that no later numpy changes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {array.shape}, }}"
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little"))
        file.write(header.ljust(117).encode("ascii") + b"\n")
        file.write(array.astype("<f4", copy=False).data)


def _write_marker(path: Path, n_dims: Mapping[str, int], n_utterances: int, seed: int) -> None:
    planted = {
        modality: [
            {
                "kind": block.kind,
                "dimensions": [round(share * n_dims[modality]) for share in block.share],
                "gain": block.gain,
                "doubt": block.doubt,
                "shown_by": block.shown_by,
            }
            for block in blocks
        ]
        for modality, blocks in PLANTED.items()
    }
    marker = {
        "note": "This corpus is generated: no person spoke any of it.",
        "version": CORPUS_VERSION,
        "seed": seed,
        "n_utterances": n_utterances,
        "classes": {str(code): name for code, name in enumerate(CLASSES)},
        "planted": planted,
    }
    write_text(path, json.dumps(marker, indent=2) + "\n")


def _random_stream(seed: int, *names: str) -> SFC64:
    """Open the stream of random bits of a seed and names."""
    digest = sha256("\x1f".join((str(seed), *names)).encode()).digest()
    return SFC64(SeedSequence(int.from_bytes(digest[:16], "little")))


def _draw_bells(stream: SFC64, shape: tuple[int, ...]) -> _Frames:
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


def _make_features(seed: int, modality: str, n_dims: int, utterance: _Utterance) -> _Frames:
    """Make the features of one utterance: (n_frames, n_dims), or (n_dims,) for text."""
    stream = _random_stream(seed, "features", modality, utterance.name)
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
        if kind in ("level", "product", "threshold"):
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
    stream: SFC64, n_frames: int, n_dims: int, movements: list[tuple[str, slice, _Frames]]
) -> _Frames:
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
    noise: _Frames = bells[1:] * (size * np.sqrt(1 - inertia * inertia))
    noise += bells[:-1] * (size * inertia)
    return noise


def _last_third(n_frames: int) -> _Frames:
    """Return 1 in the last third, and before it the negative constant that makes the mean 0."""
    start = 2 * n_frames // 3
    shape = np.full(n_frames, -(n_frames - start) / start, dtype=np.float32)
    shape[start:] = 1
    return shape


def _drift(n_frames: int) -> _Frames:
    """Return a straight line from -1 to 1."""
    return (np.arange(n_frames) * (2 / (n_frames - 1)) - 1).astype(np.float32)


def _rare_frames(stream: SFC64, n_frames: int, n_dims: int) -> _Frames:
    """Return peaks in about one frame of twelve, less their share, so that the mean is 0."""
    rare = _draw_bells(stream, (n_frames, n_dims)) > _RARE
    share = rare.sum(axis=0, dtype=np.int64) / n_frames
    rare_less_share: _Frames = (rare - share).astype(np.float32)
    return rare_less_share


@lru_cache(maxsize=1024)
def _trait(seed: int, modality: str, n_dims: int, name: str) -> _Frames:
    """Draw the constant part of the features of a speaker, session or dialogue."""
    return _draw_bells(_random_stream(seed, "trait", modality, name), (n_dims,))


@lru_cache(maxsize=1024)
def _pattern(seed: int, modality: str, n_dims: int, kind: str, speaker: str) -> _Frames:
    """Draw the movement of each dimension with each cue: a common and a personal part."""
    names = ("pattern", modality, kind)
    pattern = _draw_bells(_random_stream(seed, *names), (3, n_dims))
    personal = _draw_bells(_random_stream(seed, *names, speaker), (3, n_dims))
    pattern += np.float32(_PERSONAL_STYLE) * personal
    pattern /= np.float32(sqrt(3))
    return pattern


@lru_cache(maxsize=8)
def _shared_doubt(seed: int, name: str) -> _Frames:
    """Draw the noise of an utterance's class cues that all modalities share."""
    return np.float32(_SHARED_DOUBT) * _draw_bells(_random_stream(seed, "doubt", name), (3,))


def _move(
    stream: SFC64, seed: int, modality: str, n_dims: int, utterance: _Utterance
) -> list[tuple[str, slice, _Frames]]:
    """Draw the movement of each block: the cues of the class with noise, as it shows them."""
    cues = np.asarray(_CUES[utterance.label], dtype=np.float32)
    cues = cues + _shared_doubt(seed, utterance.name)
    movements = []
    for block in PLANTED[modality]:
        own_doubt = np.float32(sqrt(block.doubt**2 - _SHARED_DOUBT**2))
        shown = cues + own_doubt * _draw_bells(stream, (3,))
        dims = block.dimensions(n_dims)
        if block.kind == "product":
            moved = _multiply(stream, shown, dims.stop - dims.start)
        elif block.kind == "threshold":
            moved = _leave_middle(stream, shown, dims.stop - dims.start)
        else:
            pattern = _pattern(seed, modality, n_dims, block.kind, utterance.speaker)[:, dims]
            moved = shown[0] * pattern[0] + shown[1] * pattern[1] + shown[2] * pattern[2]
        movements.append((block.kind, dims, np.float32(block.gain) * moved))
    return movements


def _multiply(stream: SFC64, shown: _Frames, n_dims: int) -> _Frames:
    """Draw pairs of neighbours whose product is a cue; the sign of each alone is random."""
    number = np.arange(n_dims)
    cue = number // 2 % 3
    products: _Frames = _draw_signs(stream, 3)[cue]
    products[1::2] *= shown[cue][1::2]
    return products


def _leave_middle(stream: SFC64, shown: _Frames, n_dims: int) -> _Frames:
    """Draw -1 or 1 at random in each dimension whose cue is positive, and 0 in the others."""
    moved: _Frames = _draw_signs(stream, n_dims) * (shown[np.arange(n_dims) % 3] > 0)
    return moved


def _draw_signs(stream: SFC64, size: int) -> _Frames:
    """Draw -1 or 1, each in half of the cases."""
    signs = 2 * (stream.random_raw(size) & np.uint64(1)).astype(np.float32) - 1
    return signs.astype(np.float32)
