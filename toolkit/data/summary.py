"""The content of a data set: the summary of ``toolkit check``, and recordings found twice."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data.containers import split_member
from toolkit.data.headers import SequenceError
from toolkit.data.manifest import Manifest
from toolkit.data.sequences import read_header, read_sequence

NEAR_COSINE = 0.99
"""Cosine of centred features from which two utterances count as near-duplicates."""

# Two people hardly ever share the numbers of so many frames, but a short word spoken by both
# may well have one vector, and so may two silent clips of a frame or two.
_FRAMES_OF_A_RECORDING = 5
_MOST_NAMED = 3
# All pairs of more utterances take minutes; blocks of rows bound the memory.
_MOST_COMPARED = 20_000
_BLOCK = 1_024


@dataclass(frozen=True, slots=True)
class _File:
    """A file as read: no shape and no digest if unreadable, no path for an empty cell."""

    path: Path | None = None
    shape: tuple[int, ...] = ()
    n_bytes: int = 0
    finite: bool = True
    digest: bytes | None = None
    problem: str = ""

    @property
    def kind(self) -> tuple[int, int]:
        """Number of axes and of dimensions: the same in all files of a modality."""
        return len(self.shape), self.shape[-1]

    @property
    def n_frames(self) -> int:
        """Number of frames; 0 without a time axis."""
        return self.shape[0] if len(self.shape) == 2 else 0


def _examine(path: Path | None, frames: str, *, allow_missing: bool) -> _File:
    if path is None:
        return _File()
    try:
        sequence = read_sequence(path)
    except SequenceError as error:
        return _File(path, problem=str(error))
    finite = np.isfinite(sequence)
    digest = blake2b(f"{sequence.shape} {sequence.dtype}".encode(), digest_size=16)
    digest.update(sequence.data)
    return _File(
        path,
        shape=sequence.shape,
        n_bytes=sequence.nbytes,
        finite=bool(finite.all()),
        digest=digest.digest(),
        problem=_explain_gaps(finite, path, frames, allow_missing=allow_missing),
    )


def _explain_gaps(
    finite: NDArray[np.bool_], path: Path, frames: str, *, allow_missing: bool
) -> str:
    """Explain why values that are not finite make a file unusable; empty if they do not."""
    if finite.all():
        return ""
    if finite.ndim == 1:
        if allow_missing:
            return ""
        return (
            f"{path}: dimension {int(finite.argmin())} is not a finite number, one of "
            f"{int((~finite).sum()):,}. Write the file again, or take such values as missing "
            "with --missing allow."
        )
    whole: NDArray[np.bool_] = np.all(finite, axis=1)
    if frames == "refuse":
        return (
            f"{path}: frame {int(whole.argmin())} is not finite, one of "
            f"{int((~whole).sum()):,} of {len(whole):,} frames. Write the file again, or "
            "repair such frames with --frames drop or --frames interpolate."
        )
    # Interpolating needs one finite value per dimension, dropping one finite frame.
    usable = finite.any(axis=0).all() if frames == "interpolate" else whole.any()
    if usable or allow_missing:
        return ""
    return (
        f"{path}: no finite frame is left. Leave its cell in the table empty, or take such "
        "files as missing with --missing allow."
    )


def _find_duplicates(
    utterances: Sequence[str],
    speakers: Sequence[str],
    digests: Mapping[str, Sequence[bytes | None]],
    n_frames: Sequence[int],
) -> tuple[list[str], list[str]]:
    """Describe recordings under several speakers, and utterances that merely coincide."""
    recordings, coincidences = list[str](), list[str]()
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
    if by_chance:
        coincidences.append(
            f"{len(by_chance):,} utterances hold the same numbers as another speaker's in "
            f"every modality, with fewer than {_FRAMES_OF_A_RECORDING} frames, such as "
            f"{_list([utterances[i] for i in by_chance])}."
        )
    if repeated:
        coincidences.append(
            "Utterances that repeat another of the same speaker in every modality, and so "
            f"count twice: {len(repeated):,}, such as "
            f"{_list([utterances[i] for i in repeated])}."
        )
    for modality, column in digests.items():
        # An utterance that is alike in every modality is reported above.
        if shared := sorted({*_find_shared(column, speakers)} - reported):
            coincidences.append(
                f"Modality {modality!r}: {len(shared):,} utterances hold the same numbers as "
                f"another speaker's, such as {_list([utterances[i] for i in shared])}."
            )
    return recordings, coincidences


def _group(keys: Sequence[Hashable]) -> list[list[int]]:
    """Group the positions of equal keys, without None and without keys that occur once."""
    groups: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def _find_shared(keys: Sequence[Hashable], speakers: Sequence[str]) -> list[int]:
    """Return the positions of the keys that several speakers have, key by key."""
    groups = _group(keys)
    return [i for group in groups if len({speakers[i] for i in group}) > 1 for i in group]


def _list(names: Sequence[str]) -> str:
    shown = [repr(str(name)) for name in names[:_MOST_NAMED]]
    if len(names) > _MOST_NAMED:
        shown.append(f"{len(names) - _MOST_NAMED:,} more")
    *first, last = shown
    return f"{', '.join(first)} and {last}" if first else last


def find_recordings(manifest: Manifest) -> list[str]:
    """Find recordings under several speakers, reading as few files as possible.

    Only utterances whose files agree in size in every modality are read.

    Parameters
    ----------
    manifest : Manifest
        The utterances and their files.

    Returns
    -------
    list of str
        One sentence per recording, as :func:`toolkit.data.summarise_manifest` reports it.
    """
    sizes = [map(_measure, paths) for paths in manifest.paths.values()]
    suspects = _find_shared([*zip(*sizes, strict=True)], manifest.speakers.tolist())
    files = {
        modality: [_examine(paths[row], "drop", allow_missing=True) for row in suspects]
        for modality, paths in manifest.paths.items()
    }
    return _compare_files(manifest, suspects, files)[0]


def _measure(path: Path | None) -> int | None:
    """Return the bytes of a file, or of the numbers of one array of a container."""
    if path is None:
        return None
    if split_member(path) is None:
        return path.stat().st_size
    try:
        return read_header(path).n_bytes
    except SequenceError:  # pooling reports it
        return 0


def _compare_files(
    manifest: Manifest, rows: Sequence[int], files: Mapping[str, Sequence[_File]]
) -> tuple[list[str], list[str]]:
    return _find_duplicates(
        manifest.utterances[rows].tolist(),
        manifest.speakers[rows].tolist(),
        {modality: [file.digest for file in column] for modality, column in files.items()},
        [max(file.n_frames for file in row) for row in zip(*files.values(), strict=True)],
    )


def count_shared(
    values: NDArray[np.floating[Any]], speakers: NDArray[np.str_], *, compare: bool
) -> tuple[int, int | None]:
    """Count utterances whose features in one modality are those of another speaker, or nearly.

    A model may recognise a sentence that another speaker spoke in the training rows.

    Parameters
    ----------
    values : ndarray of shape (n, n_features)
        Features of the utterances that have the modality; NaN where a value is missing.
    speakers : ndarray of str, shape (n,)
        Speaker of each utterance.
    compare : bool
        Whether to search for near-duplicates: cosine of the centred features at least
        :data:`NEAR_COSINE`.

    Returns
    -------
    same : int
        Utterances with exactly the features of another speaker's.
    near : int or None
        Further near-duplicates; None if not compared, for more than 20,000 utterances, or for
        fewer than two.
    """
    n = len(values)
    same = np.zeros(n, dtype=bool)
    same[_find_shared([row.tobytes() for row in values], speakers.tolist())] = True
    if not compare or not 2 <= n <= _MOST_COMPARED:
        return int(same.sum()), None
    codes = np.unique(speakers, return_inverse=True)[1]
    centred = np.nan_to_num(values - np.nanmean(values, axis=0))
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    centred = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    near = np.zeros(n, dtype=bool)
    for start in range(0, n, _BLOCK):
        block = slice(start, start + _BLOCK)
        alike = centred[block] @ centred.T >= NEAR_COSINE
        near[block] = (alike & (codes[block, None] != codes[None, :])).any(axis=1)
    return int(same.sum()), int((near & ~same).sum())


@dataclass(frozen=True, slots=True, eq=False)
class _ModalitySummary:
    """Counts over the feature files of one modality.

    - n_files: Readable files; `n_not_finite` of them have an infinite value or NaN.
    - n_absent: Files in the table that do not exist, where that is allowed.
    - dims: Number of files per number of dimensions, the commonest first.
    - has_time: Whether most files have a time axis; None if none is readable.
    - n_frames: Shortest, median and longest number of frames; None without a time axis.
    - n_bytes: Size of the readable files as arrays in memory.
    """

    modality: str
    n_files: int
    n_empty: int
    n_absent: int
    n_unreadable: int
    n_not_finite: int
    dims: Mapping[int, int]
    has_time: bool | None
    n_frames: tuple[int, float, int] | None
    n_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class DatasetSummary:
    """The content of a data set, and the problems that prevent its use.

    Parameters
    ----------
    source : str
        Name of the table.
    generated : bool
        Whether :func:`toolkit.data.make_corpus` made the recordings.
    classes, speakers : tuple of str
        Names of the classes in the order of their codes, and of the speakers, sorted.
    counts : ndarray of int64, shape (n_speakers, n_classes)
        Utterances of each class by each speaker; read-only.
    n_sessions : int or None
        Number of sessions; None if they are unknown.
    modalities : tuple of _ModalitySummary
        In the order of the columns.
    n_complete : int
        Utterances with a readable file in every modality.
    problems, warnings : tuple of str
        Sentences for what must be solved before a study can run, and for the reader of the
        results, those of the table first.
    """

    source: str
    generated: bool
    classes: tuple[str, ...]
    speakers: tuple[str, ...]
    counts: NDArray[np.int64]
    n_sessions: int | None
    modalities: tuple[_ModalitySummary, ...]
    n_complete: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def n_utterances(self) -> int:
        """Number of utterances."""
        return int(self.counts.sum())


def summarise_manifest(
    manifest: Manifest,
    *,
    missing: Literal["refuse", "allow"] = "refuse",
    frames: Literal["refuse", "drop", "interpolate"] = "refuse",
    duplicates: Literal["refuse", "allow"] = "refuse",
    progress: Callable[[int, int], None] | None = None,
) -> DatasetSummary:
    """Read every feature file once and summarise the data set.

    Utterances of two speakers are one recording if they hold the same numbers in every
    modality, and five frames or more in one: a model trained on the one has seen the other.

    Parameters
    ----------
    manifest : Manifest
        The table of utterances.
    missing : {"refuse", "allow"}, default="refuse"
        Whether unreadable files, and values of a fixed-size feature that are not finite, may
        be taken as missing.
    frames : {"refuse", "drop", "interpolate"}, default="refuse"
        Treatment of frames that are not finite.
    duplicates : {"refuse", "allow"}, default="refuse"
        Whether two speakers may have the same recording.
    progress : callable, optional
        Called after each file with the number of files read and their total.

    Returns
    -------
    DatasetSummary
        Counts, and sentences for the problems and warnings.
    """
    allow_missing = missing == "allow"
    total = sum(path is not None for paths in manifest.paths.values() for path in paths)
    done = count(1)
    files: dict[str, list[_File]] = {modality: [] for modality in manifest.modalities}
    for modality in manifest.modalities:
        for path in manifest.paths[modality]:
            files[modality].append(_examine(path, frames, allow_missing=allow_missing))
            if path is not None and progress is not None:
                progress(next(done), total)

    utterances = manifest.utterances.tolist()
    problems, warnings = list[str](), list(manifest.warnings)
    for modality, column in files.items():
        problems += _find_problems(modality, utterances, column, allow_missing=allow_missing)
        warnings += _find_warnings(modality, column, allow_missing=allow_missing)
    recordings, coincidences = _compare_files(manifest, range(len(manifest)), files)
    (problems if duplicates == "refuse" else warnings).extend(recordings)
    speakers, codes = np.unique(manifest.speakers, return_inverse=True)
    counts = np.zeros((len(speakers), len(manifest.classes)), dtype=np.int64)
    np.add.at(counts, (codes, manifest.labels), 1)
    counts.setflags(write=False)
    return DatasetSummary(
        source=manifest.source,
        generated=manifest.generated,
        classes=manifest.classes,
        speakers=tuple(speakers.tolist()),
        counts=counts,
        n_sessions=None if manifest.sessions is None else len(set(manifest.sessions.tolist())),
        modalities=tuple(
            _summarise_modality(modality, column, manifest.absent.get(modality, 0))
            for modality, column in files.items()
        ),
        n_complete=sum(
            all(file.shape for file in row) for row in zip(*files.values(), strict=True)
        ),
        problems=tuple(problems),
        warnings=(*warnings, *coincidences),
    )


def _find_problems(
    modality: str, utterances: Sequence[str], files: Sequence[_File], *, allow_missing: bool
) -> list[str]:
    """Describe the problems of the files of one modality."""
    problems = []
    kinds = Counter(file.kind for file in files if file.shape)
    usual = kinds.most_common(1)[0][0] if kinds else None
    for utterance, file in zip(utterances, files, strict=True):
        where = f"utterance {utterance!r}, modality {modality!r}"
        if file.problem and (file.shape or not allow_missing):
            problems.append(f"{where}: {file.problem}")
        if file.shape and usual is not None and file.kind != usual:
            problems.append(
                f"{where}: {file.path} has {_describe_kind(file.kind)}, and {kinds[usual]:,} "
                f"of {kinds.total():,} files have {_describe_kind(usual)}; all must be alike."
            )
    return problems


def _describe_kind(kind: tuple[int, int]) -> str:
    axes, n_dims = kind
    return f"{n_dims:,} dimensions and {'a' if axes == 2 else 'no'} time axis"


def _find_warnings(modality: str, files: Sequence[_File], *, allow_missing: bool) -> list[str]:
    """Describe the problems of one modality that the options allow."""
    warnings = []
    n_unreadable = sum(file.path is not None and not file.shape for file in files)
    if n_unreadable and allow_missing:
        warnings.append(
            f"Modality {modality!r}: files that cannot be read, and so count as missing: "
            f"{n_unreadable:,}."
        )
    if n_repaired := sum(not file.finite and not file.problem for file in files):
        warnings.append(
            f"Modality {modality!r}: files with values that are not finite, dealt with as "
            f"asked: {n_repaired:,}."
        )
    return warnings


def _summarise_modality(
    modality: str, files: Sequence[_File], n_absent: int
) -> _ModalitySummary:
    found = [file for file in files if file.path is not None]
    read = [file for file in found if file.shape]
    timed = [file.n_frames for file in read if len(file.shape) == 2]
    return _ModalitySummary(
        modality=modality,
        n_files=len(read),
        n_empty=len(files) - len(found) - n_absent,
        n_absent=n_absent,
        n_unreadable=len(found) - len(read),
        n_not_finite=sum(not file.finite for file in read),
        dims=MappingProxyType(dict(Counter(file.shape[-1] for file in read).most_common())),
        has_time=2 * len(timed) > len(read) if read else None,
        n_frames=(min(timed), float(median(timed)), max(timed)) if timed else None,
        n_bytes=sum(file.n_bytes for file in read),
    )
