"""Feature files examined: shape, gaps and padding of one, and the same numbers found twice."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.data.audio import Sound
from toolkit.data.feature_files import TEXT_NAMES
from toolkit.data.headers import SequenceError
from toolkit.data.manifest import Manifest
from toolkit.data.sequences import read_sequence
from toolkit.data.tables import NumberTable

# Statistics reach some ten times the largest number of a file, and are kept in float32.
_LARGEST = 1e37
_INFINITE = 1e38  # stands for numbers beyond float32 where files are compared
_N_SAMPLED = 64
_FEW = 8  # numbers of a file that may well be equal, such as three counts of 0
_MANTISSA_BITS = 11  # of float16
_SMALLEST = 2.0**-14  # the least number that float16 holds with all of them

NEAR_COSINE = 0.99
"""Cosine of standardised features from which two utterances count as near-duplicates."""

# Two people hardly ever share the numbers of so many frames, but a short word spoken by both
# may well have one vector, and so may two silent clips of a frame or two.
_FRAMES_OF_A_RECORDING = 5
_SPEAKERS_OF_A_SENTENCE = 3
_MOST_NAMED = 3
# With fewer utterances, a dimension with few values may separate the classes by chance.
_FEWEST_UTTERANCES = 10
# All pairs of more utterances take minutes; blocks of rows bound the memory.
_MOST_COMPARED = 20_000
# In few dimensions, also the vectors of different utterances have such a cosine: in 20, one
# pair in 10^17 of independent normal ones, in 5 one in 10^4.
_FEWEST_DIMENSIONS = 20
_BLOCK = 1_024


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as read: no path for an empty cell, no shape if it is unreadable.

    - problem: Reason why the options do not allow the file; empty without one.
    - refused: Shape of an array that is no sequence.
    - low, high: Least and largest finite number.
    - still: Whether all frames are the same, or all numbers of a file that is not small.
    - padding: Number of all-zero frames at the beginning or the end, the larger.
    - key: Shape and some numbers, which are equal in all files of the same numbers.
    - gaps: Values that are not finite, per dimension; `dead` are those without a finite one.
    - usable: Whether anything is left to pool.
    - sound: The recording that the numbers were computed from, without its samples.
    """

    path: Path | None = None
    problem: str = ""
    refused: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    n_bytes: int = 0
    low: float = 0.0
    high: float = 0.0
    still: bool = False
    padding: int = 0
    key: bytes | None = None
    gaps: tuple[tuple[int, int], ...] = ()
    dead: tuple[int, ...] = ()
    usable: bool = False
    sound: Sound | None = None

    @classmethod
    def of_text(cls, path: Path | None) -> Self:
        """Give the facts of a transcript in a table; its words have no dimensions yet."""
        return cls() if path is None else cls(path, shape=(0,), usable=True)

    @classmethod
    def read(cls, path: Path | None, frames: str, *, allow_missing: bool) -> Self:
        """Read one file and collect its facts under the policies of a study."""
        if path is None:
            return cls()
        try:
            sequence = read_sequence(path)
            sound = Sound.describe(path)
        except SequenceError as error:
            return cls(path, str(error), error.shape)
        with np.errstate(invalid="ignore"):
            low, high = float(sequence.min()), float(sequence.max())
        problem, usable, finite = "", True, None
        # The least or the largest number is not finite if any is: large files need no mask.
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = np.isfinite(sequence)
            problem, usable = _explain_gaps(finite, path, frames, allow_missing=allow_missing)
            low = float(sequence.min(where=finite, initial=np.inf))
            high = float(sequence.max(where=finite, initial=-np.inf))
        if max(high, -low) > _LARGEST and finite is None:
            largest = high if high > -low else low
            problem = (
                f"{path}: {largest:.3g} is too large, since features are kept in float32; at "
                f"most {_LARGEST:.0e} is. Bring the features to a smaller unit."
            )
        flat = sequence.reshape(-1)
        sample = _coarsen(flat[:: -(-flat.size // _N_SAMPLED)])
        return cls(
            path,
            problem,
            shape=sequence.shape,
            n_bytes=sequence.nbytes,
            low=low,
            high=high,
            still=_is_still(sequence, varies=low < high),
            padding=_count_padding(sequence),
            key=f"{sequence.shape}".encode() + sample.tobytes(),
            usable=usable,
            sound=sound,
            **({} if finite is None else _count_gaps(finite)),
        )

    @property
    def kind(self) -> tuple[int, int]:
        """Number of axes and of dimensions: the same in all files of a modality."""
        return len(self.shape), self.shape[-1]

    @property
    def n_frames(self) -> int:
        """Number of frames; 0 without a time axis."""
        return self.shape[0] if len(self.shape) == 2 else 0

    def hash_numbers(self) -> tuple[bytes, bytes, bool]:
        """Hash the numbers of a readable file, whatever their type, order and file format.

        In float32, rounded as float16 would, and whether float16 holds them as they are.
        """
        assert self.path is not None
        sequence = read_sequence(self.path)
        single, rounded = _to_single(sequence), _coarsen(sequence)
        hashes = [blake2b(array.data, digest_size=16).digest() for array in (single, rounded)]
        return hashes[0], hashes[1], bool((single == rounded).all())


def _count_gaps(finite: NDArray[np.bool_]) -> dict[str, Any]:
    n_gaps = (~np.atleast_2d(finite)).sum(axis=0)
    found = np.flatnonzero(n_gaps).tolist()
    length = len(finite) if finite.ndim == 2 else 1
    return {
        "gaps": tuple((dimension, int(n_gaps[dimension])) for dimension in found),
        "dead": tuple(dimension for dimension in found if n_gaps[dimension] == length),
    }


def _explain_gaps(
    finite: NDArray[np.bool_], path: Path, frames: str, *, allow_missing: bool
) -> tuple[str, bool]:
    """Explain why gaps make a file unusable, if they do, and whether anything can be pooled."""
    if not finite.any():
        reason = (
            f"{path}: none of its numbers is finite, so that no frame is left. "
            "Leave its cell in the table empty, or take such files as missing with --missing "
            "allow."
        )
        return ("" if allow_missing else reason), False
    if finite.ndim == 1:
        place = NumberTable.name_place(path, int(finite.argmin()), 0)
        reason = (
            f"{path}: {place} is not a finite number (such values: {(~finite).sum():,} of "
            f"{len(finite):,}). Write the file again, or take such values as missing with "
            "--missing allow."
        )
        return ("" if allow_missing else reason), True
    alive: NDArray[np.bool_] = np.any(finite, axis=0)
    whole: NDArray[np.bool_] = np.all(finite[:, alive], axis=1)
    if frames == "refuse" and not (allow_missing and whole.all()):
        if not alive.all():
            return (
                f"{path}: {NumberTable.name_place(path, int(alive.argmin()))} is not finite "
                f"in any frame (such dimensions: {int((~alive).sum()):,} of {len(alive):,}). "
                "Write the file again, or keep the clip without them with --missing allow, "
                "--frames drop or --frames interpolate."
            ), True
        first = int(whole.argmin())
        place = NumberTable.name_place(path, int((finite[first] | ~alive).argmin()), first)
        return (
            f"{path}: frames that are not finite: {(~whole).sum():,} of {len(whole):,}; the "
            f"first is frame {first} ({place}). Write the file again, or repair such frames "
            "with --frames drop or --frames interpolate."
        ), True
    # Interpolating needs one finite value per dimension, dropping one finite frame.
    if frames != "drop" or whole.any():
        return "", True
    reason = (
        f"{path}: no finite frame is left. Repair its frames with --frames interpolate, leave "
        "its cell in the table empty, or take such files as missing with --missing allow."
    )
    return ("" if allow_missing else reason), False


def _is_still(sequence: NDArray[np.floating[Any]], *, varies: bool) -> bool:
    if not varies:
        return sequence.size >= _FEW
    if sequence.ndim == 1 or len(sequence) < 2 or (sequence[0] != sequence[-1]).any():
        return False
    return bool((sequence == sequence[0]).all())


def _count_padding(sequence: NDArray[np.floating[Any]]) -> int:
    if sequence.ndim == 1 or (sequence[0].any() and sequence[-1].any()):
        return 0
    filled = np.flatnonzero(sequence.any(axis=1))
    # A file of nothing but zeros is still, and no padding.
    return max(filled[0], len(sequence) - 1 - filled[-1]) if len(filled) else 0


def _to_single(numbers: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = numbers.astype(np.float32)
    bounded = np.nan_to_num(single, posinf=_INFINITE, neginf=-_INFINITE)
    return bounded + np.float32(0)  # -0 becomes 0


def _coarsen(numbers: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Round to the precision of float16, so that a copy in another type gives the same."""
    mantissa, exponent = np.frexp(_to_single(numbers))
    rounded = np.ldexp(np.rint(np.ldexp(mantissa, _MANTISSA_BITS)), exponent - _MANTISSA_BITS)
    result: NDArray[np.float32] = np.where(np.abs(rounded) < _SMALLEST, 0, rounded) + 0
    return result


def compare_files(
    manifest: Manifest, files: Mapping[str, Sequence[FileFacts]]
) -> tuple[list[str], dict[str, list[str]]]:
    """Describe recordings under several speakers, and other numbers found twice.

    Files are compared by their numbers, whatever the type, order and format. Notes are those
    of each modality, and those of all of them under an empty name.
    """
    notes = {name: _describe_transcripts(manifest, name) for name in manifest.texts}
    # People may speak the same words: that is no recording found twice.
    files = {name: column for name, column in files.items() if name not in notes}
    notes |= {name: [] for name in (*files, "")}
    speakers, utterances = manifest.speakers.tolist(), manifest.utterances.tolist()
    digests = {modality: _hash_alike(column) for modality, column in files.items()}
    moving = dict(digests)
    for modality, column in files.items():
        cause = _explain_modality(modality, column, digests[modality], speakers)
        if cause:
            notes[modality].append(cause)
            del moving[modality]
    n_frames = [
        max(
            (files[name][row].n_frames * (not files[name][row].still) for name in moving),
            default=0,
        )
        for row in range(len(manifest))
    ]
    recordings, coincidences = _find_duplicates(utterances, speakers, digests, n_frames, moving)
    for modality, sentences in coincidences.items():
        notes[modality] += sentences
    for name, column in files.items():
        if name in moving:
            notes[name] += _find_contradictions(name, manifest, column, digests[name])
        notes[name] += _find_giveaways(name, manifest, column)
    return recordings, notes


def _find_contradictions(
    modality: str,
    manifest: Manifest,
    files: Sequence[FileFacts],
    digests: Sequence[bytes | None],
) -> list[str]:
    """Describe recordings of one speaker that are found twice, with different labels."""
    keys = [
        (digest, speaker)
        if digest is not None and not file.still and file.n_frames >= _FRAMES_OF_A_RECORDING
        else None
        for digest, speaker, file in zip(digests, manifest.speakers, files, strict=True)
    ]
    labels = manifest.labels.tolist()
    found = [g for g in _group(keys) if len({labels[i] for i in g} - {-1}) > 1]
    if not found:
        return []
    named = [
        f"{str(manifest.utterances[i])!r} ({manifest.classes[labels[i]]})" for i in found[0]
    ]
    sentence = (
        f"Modality {modality!r}: {sum(map(len, found)):,} utterances hold the same recording "
        f"as another of the same speaker with another label, such as {_join(named)}. Correct "
        "the label or the file of one of them."
    )
    return [sentence]


def _find_giveaways(modality: str, manifest: Manifest, files: Sequence[FileFacts]) -> list[str]:
    """Describe dimensions of one value per class, another for each: labels among features."""
    labels = manifest.labels.tolist()
    used = {i: f for i, f in enumerate(files) if f.usable and labels[i] >= 0}
    kinds = {file.kind for file in used.values()}
    if len(used) < _FEWEST_UTTERANCES or len(kinds) > 1:
        return []
    values = np.full((len(manifest.classes), kinds.pop()[1]), np.nan)
    gives = np.ones(values.shape[1], dtype=bool)
    # A file per class first: then few files suffice where no dimension gives the label.
    first = {labels[row]: row for row in reversed(used)}
    for row in (*first.values(), *used):
        path = used[row].path or Path()
        frames = np.atleast_2d(read_sequence(path)).astype(np.float64)
        own = values[labels[row]]
        np.copyto(own, frames[0], where=np.isnan(own))
        gives &= ((frames == own) | np.isnan(frames)).all(axis=0)
        gives &= (values == own).sum(axis=0) < 2
        if not gives.any():
            return []
    found = np.flatnonzero(gives & ~np.isnan(values).any(axis=0)).tolist()
    named = _join([NumberTable.name_place(path, dimension) for dimension in found])
    sentence = (
        f"Modality {modality!r}: one value per class, another in each, in all {len(used):,} "
        f"utterances: {named}. A system needs nothing else; take labels out of the features."
    )
    return [sentence] * bool(found)


def _describe_transcripts(manifest: Manifest, modality: str) -> list[str]:
    """Describe transcripts that several people speak: content that training rows may hold."""
    keys = [text.casefold() or None for text in manifest.texts[modality]]
    shared = find_shared(keys, manifest.speakers.tolist())
    if not shared:
        return []
    n_texts = len(keys) - keys.count(None)
    sentence = (
        f"Modality {modality!r}: {len(shared):,} of {n_texts:,} utterances have one of "
        f"{len({keys[row] for row in shared}):,} transcripts that several people speak. A "
        "system can recognise such a sentence in a person never seen; hold content out too, "
        "or say so beside the scores."
    )
    return [sentence]


def _hash_alike(files: Sequence[FileFacts]) -> list[bytes | None]:
    """Give files of the same numbers the same hash; only files of the same key are read."""
    found: list[bytes | None] = [file.key for file in files]
    for group in _group(found):
        hashes = dict[Any, tuple[bytes, bytes, bool]]()
        for row in group:
            if files[row].path not in hashes:
                hashes[files[row].path] = files[row].hash_numbers()
        # A copy in float16 has rounded numbers: then those of the others are rounded too.
        is_rounded = any(coarse for *_, coarse in hashes.values())
        for row in group:
            shape = f"{files[row].shape}".encode()
            single, rounded, _ = hashes[files[row].path]
            found[row] = shape + (rounded if is_rounded else single)
    return found


def _explain_modality(
    modality: str,
    files: Sequence[FileFacts],
    digests: Sequence[bytes | None],
    speakers: Sequence[str],
) -> str:
    """Describe a modality that is the same for everybody, or of a few fixed sentences."""
    rows = [row for row, digest in enumerate(digests) if digest is not None]
    if len(rows) < 2:
        return ""
    alone = {files[row].path for row in rows}
    if len(alone) == 1:
        return (
            f"Modality {modality!r} is constant: all {len(rows):,} rows name one file, "
            f"{next(iter(alone))}. Name a file per utterance, or arrays of it as in FILE#NAME."
        )
    values = {(files[row].low, files[row].high) for row in rows}
    if len({digests[row] for row in rows}) == 1 or (
        len(values) == 1 and all(low == high for low, high in values)
    ):
        return (
            f"Modality {modality!r} is constant: all {len(rows):,} files hold the same "
            "numbers. Extract it again, or leave it out with --modality."
        )
    many = [
        group
        for group in _group(digests)
        if len({speakers[i] for i in group}) >= _SPEAKERS_OF_A_SENTENCE
    ]
    n_shared = sum(map(len, many))
    if modality not in TEXT_NAMES or 2 * n_shared < len(rows):
        return ""
    return (
        f"Modality {modality!r}: {n_shared:,} of {len(rows):,} utterances share "
        f"{len(many):,} vectors over people: fixed sentences. They tell the sentence and not "
        "the person; where each class has sentences of its own, scores are theirs."
    )


def _find_duplicates(
    utterances: Sequence[str],
    speakers: Sequence[str],
    digests: Mapping[str, Sequence[bytes | None]],
    n_frames: Sequence[int],
    moving: Mapping[str, object],
) -> tuple[list[str], dict[str, list[str]]]:
    """Describe recordings under several speakers, and utterances that merely coincide.

    - n_frames: Frames per row that make it a recording; still ones are none.
    - moving: Modalities whose coincidences are described.
    """
    recordings, together, alone = list[str](), list[str](), dict[str, list[str]]()
    by_chance, repeated, reported = list[int](), list[int](), set[int]()
    rows = list(zip(*digests.values(), strict=True))
    for group in _group([row if any(row) else None for row in rows]):
        names = sorted({speakers[i] for i in group})
        recorded = n_frames[group[0]] >= _FRAMES_OF_A_RECORDING
        if len(names) == 1:
            repeated += group[1:] if recorded else []
            continue
        reported.update(group)
        if recorded:
            recordings.append(
                f"Utterances {_list([utterances[i] for i in group])} of speakers "
                f"{_list(names)} hold the same numbers in every modality: one recording under "
                "several names. Keep one of them, or allow it with --duplicates allow."
            )
        else:
            by_chance += group
    if by_chance and moving:
        together.append(
            f"{len(by_chance):,} utterances hold the same numbers as another speaker's in "
            f"every modality, with fewer than {_FRAMES_OF_A_RECORDING} frames that vary, such "
            f"as {_list([utterances[i] for i in by_chance])}."
        )
    if repeated:
        together.append(
            "Utterances that repeat another of the same speaker in every modality, and so "
            f"count twice: {len(repeated):,}, such as "
            f"{_list([utterances[i] for i in repeated])}."
        )
    for modality in moving:
        # An utterance that is alike in every modality is reported above.
        if shared := sorted({*find_shared(digests[modality], speakers)} - reported):
            sentence = (
                f"Modality {modality!r}: {len(shared):,} utterances hold the same numbers as "
                f"another speaker's, such as {_list([utterances[i] for i in shared])}."
            )
            alone[modality] = [sentence]
    return recordings, {**alone, "": together}


def _group(keys: Sequence[Hashable]) -> list[list[int]]:
    """Group the positions of equal keys, without None and without keys that occur once."""
    groups: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def find_shared(keys: Sequence[Hashable], speakers: Sequence[str]) -> list[int]:
    """Return the positions of the keys that several speakers have, key by key."""
    groups = _group(keys)
    return [i for group in groups if len({speakers[i] for i in group}) > 1 for i in group]


def _list(names: Sequence[str]) -> str:
    return _join([repr(str(name)) for name in names])


def _join(names: Sequence[str]) -> str:
    shown = [*names[:_MOST_NAMED]]
    if len(names) > _MOST_NAMED:
        shown.append(f"{len(names) - _MOST_NAMED:,} more")
    *first, last = shown
    return f"{', '.join(first)} and {last}" if first else last


def count_shared(
    values: NDArray[np.floating[Any]], speakers: NDArray[np.str_], *, compare: bool
) -> tuple[int, int | None]:
    """Count utterances whose features in one modality are those of another speaker, or nearly.

    A model may recognise a sentence that another speaker spoke in the training rows.

    - values: shape (n, n_features), of the utterances that have the modality; NaN where
      missing.
    - compare: Whether to search for near-duplicates, of a cosine of :data:`NEAR_COSINE` or more
      between features that are standardised, since the raw ones of a large unit decide alone.

    Returns the exact ones, and the further near ones: None if they are not compared, for more
    than 20,000 utterances, for fewer than two, or for fewer than 20 features that vary.
    """
    n = len(values)
    same = np.zeros(n, dtype=bool)
    same[find_shared([row.tobytes() for row in values], speakers.tolist())] = True
    if not compare or not 2 <= n <= _MOST_COMPARED:
        return int(same.sum()), None
    codes = np.unique(speakers, return_inverse=True)[1]
    known = ~np.isnan(values)
    n_known = np.maximum(known.sum(axis=0), 1)
    scaled = np.where(known, values, 0)
    means = scaled.sum(axis=0, dtype=np.float64) / n_known
    np.subtract(scaled, means, out=scaled, where=known, casting="same_kind")
    spreads = np.sqrt(np.einsum("ij,ij->j", scaled, scaled, dtype=np.float64) / n_known)
    # The remainders of rounding are no spread.
    varies = spreads > np.finfo(values.dtype).eps * np.abs(means)
    if varies.sum() < _FEWEST_DIMENSIONS:
        return int(same.sum()), None
    scaled *= np.divide(1, spreads, out=np.zeros_like(spreads), where=varies)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    np.divide(scaled, norms, out=scaled, where=norms > 0)
    near = np.zeros(n, dtype=bool)
    for start in range(0, n, _BLOCK):
        block = slice(start, start + _BLOCK)
        alike = scaled[block] @ scaled.T >= NEAR_COSINE
        near[block] = (alike & (codes[block, None] != codes[None, :])).any(axis=1)
    return int(same.sum()), int((near & ~same).sum())
