"""What a data set holds, file by file: the numbers behind ``toolkit check``."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data.duplicates import find_duplicates
from toolkit.data.headers import SequenceError
from toolkit.data.manifest import Manifest
from toolkit.data.sequences import read_sequence


@dataclass(frozen=True, slots=True, eq=False)
class ModalitySummary:
    """What the files of one modality hold.

    - modality: Its name.
    - n_files: Files that could be read.
    - n_empty: Utterances with an empty cell.
    - n_absent: Files that the table names and that do not exist, where that was allowed.
    - n_unreadable: Files that exist and hold no sequence of numbers.
    - n_not_finite: Readable files with a value that is infinite or not a number.
    - dims: Number of files of each number of dimensions, the commonest first.
    - has_time: Whether the files have a time axis (most of them); None if none could be read.
    - n_frames: Shortest, median and longest number of frames; None without a time axis.
    - n_bytes: Size of the files that could be read, as arrays in memory.
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
    """What a data set holds, and what stands against using it.

    Parameters
    ----------
    source : str
        Name of the table.
    generated : bool
        Whether the recordings were made up.
    classes : tuple of str
        Names of the classes, in the order of their codes.
    speakers : tuple of str
        Names of the speakers, sorted.
    counts : ndarray of int64, shape (n_speakers, n_classes)
        Utterances of each class by each speaker; cannot be written to.
    n_sessions : int or None
        Number of sessions, where the table tells them.
    modalities : tuple of ModalitySummary
        In the order of the columns.
    n_complete : int
        Utterances with a readable file in every modality.
    problems : tuple of str
        Sentences on what must be mended before a study can run.
    warnings : tuple of str
        Sentences on what a reader of the results should know, those of the table first.
    """

    source: str
    generated: bool
    classes: tuple[str, ...]
    speakers: tuple[str, ...]
    counts: NDArray[np.int64]
    n_sessions: int | None
    modalities: tuple[ModalitySummary, ...]
    n_complete: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def n_utterances(self) -> int:
        """Number of utterances."""
        return int(self.counts.sum())


@dataclass(frozen=True, slots=True)
class _File:
    """What is kept of a file once it has been read; no shape means that it could not be."""

    shape: tuple[int, ...] = ()
    n_bytes: int = 0
    finite: bool = True
    digest: bytes = b""
    trouble: str = ""

    @property
    def kind(self) -> tuple[int, int]:
        """Number of axes and of dimensions: the same in all files of a modality."""
        return len(self.shape), self.shape[-1]

    @property
    def n_frames(self) -> int:
        """Number of frames, 0 without a time axis."""
        return self.shape[0] if len(self.shape) == 2 else 0


def summarise_manifest(
    manifest: Manifest,
    *,
    missing: Literal["refuse", "allow"] = "refuse",
    frames: Literal["refuse", "drop", "interpolate"] = "refuse",
    duplicates: Literal["refuse", "allow"] = "refuse",
    progress: Callable[[int, int], None] | None = None,
) -> DatasetSummary:
    """Read every feature file once and say what the data set holds.

    Only one file is in memory at a time. Utterances of two speakers with the same numbers in
    every modality are a problem where at least one modality has five frames or more: one
    recording stands under two names, and a model trained on the one has seen the other.

    Parameters
    ----------
    manifest : Manifest
        The table of utterances.
    missing : {"refuse", "allow"}, default="refuse"
        Whether files that cannot be read, and values of a fixed-size feature that are not
        finite, may be taken as missing.
    frames : {"refuse", "drop", "interpolate"}, default="refuse"
        What becomes of frames that are not finite.
    duplicates : {"refuse", "allow"}, default="refuse"
        Whether a recording may stand under two speakers.
    progress : callable, optional
        Told the number of files read and their total after each.

    Returns
    -------
    DatasetSummary
        Counts, and sentences for the problems and warnings.
    """
    allow_missing = missing == "allow"
    total = sum(path is not None for paths in manifest.paths.values() for path in paths)
    done = count(1)
    files: dict[str, list[_File | None]] = {modality: [] for modality in manifest.modalities}
    for modality in manifest.modalities:
        for path in manifest.paths[modality]:
            if path is None:
                files[modality].append(None)
                continue
            files[modality].append(_examine(path, frames, allow_missing=allow_missing))
            if progress is not None:
                progress(next(done), total)

    rows = list(zip(*files.values(), strict=True))
    problems, warnings = list[str](), list(manifest.warnings)
    for modality, found in files.items():
        problems += _find_troubles(manifest, modality, found, allow_missing=allow_missing)
        warnings += _find_oddities(modality, found, allow_missing=allow_missing)
    recordings, coincidences = find_duplicates(
        manifest.utterances.tolist(),
        manifest.speakers.tolist(),
        {
            modality: [
                file.digest if file is not None and file.shape else None for file in found
            ]
            for modality, found in files.items()
        },
        [max(file.n_frames if file else 0 for file in row) for row in rows],
    )
    (problems if duplicates == "refuse" else warnings).extend(recordings)
    speakers, who = np.unique(manifest.speakers, return_inverse=True)
    counts = np.zeros((len(speakers), len(manifest.classes)), dtype=np.int64)
    np.add.at(counts, (who, manifest.labels), 1)
    counts.setflags(write=False)
    return DatasetSummary(
        source=manifest.source,
        generated=manifest.generated,
        classes=manifest.classes,
        speakers=tuple(speakers.tolist()),
        counts=counts,
        n_sessions=None if manifest.sessions is None else len(set(manifest.sessions.tolist())),
        modalities=tuple(
            _summarise_modality(modality, found, manifest.absent.get(modality, 0))
            for modality, found in files.items()
        ),
        n_complete=sum(all(file is not None and file.shape for file in row) for row in rows),
        problems=tuple(problems),
        warnings=(*warnings, *coincidences),
    )


def _examine(path: Path, frames: str, *, allow_missing: bool) -> _File:
    try:
        sequence = read_sequence(path)
    except SequenceError as error:
        return _File(trouble=str(error))
    finite = np.isfinite(sequence)
    whole = bool(finite.all())
    digest = blake2b(f"{sequence.shape} {sequence.dtype}".encode(), digest_size=16)
    digest.update(sequence.data)
    return _File(
        shape=sequence.shape,
        n_bytes=sequence.nbytes,
        finite=whole,
        digest=digest.digest(),
        trouble="" if whole else _judge(finite, path, frames, allow_missing=allow_missing),
    )


def _judge(finite: NDArray[np.bool_], path: Path, frames: str, *, allow_missing: bool) -> str:
    """Say why values that are not finite stand against using a file, if they do."""
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
            "mend such frames with --frames drop or --frames interpolate."
        )
    left = finite.any(axis=0).all() if frames == "interpolate" else whole.any()
    if left or allow_missing:
        return ""
    return (
        f"{path}: no finite frame is left. Leave its cell in the table empty, or take such "
        "files as missing with --missing allow."
    )


def _find_troubles(
    manifest: Manifest,
    modality: str,
    files: Sequence[_File | None],
    *,
    allow_missing: bool,
) -> list[str]:
    """Say what stands against using the files of one modality."""
    troubles = []
    kinds = Counter(file.kind for file in files if file is not None and file.shape)
    usual = kinds.most_common(1)[0][0] if kinds else None
    for utterance, path, file in zip(
        manifest.utterances.tolist(), manifest.paths[modality], files, strict=True
    ):
        if file is None:
            continue
        where = f"utterance {utterance!r}, modality {modality!r}"
        if file.trouble and (file.shape or not allow_missing):
            troubles.append(f"{where}: {file.trouble}")
        if file.shape and usual is not None and file.kind != usual:
            troubles.append(
                f"{where}: {path} has {_describe_kind(file.kind)}, and {kinds[usual]:,} of "
                f"{kinds.total():,} files have {_describe_kind(usual)}; all must be alike."
            )
    return troubles


def _describe_kind(kind: tuple[int, int]) -> str:
    axes, n_dims = kind
    return f"{n_dims:,} dimensions and {'a' if axes == 2 else 'no'} time axis"


def _find_oddities(
    modality: str, files: Sequence[_File | None], *, allow_missing: bool
) -> list[str]:
    """Say what was allowed in the files of one modality and should be known."""
    oddities = []
    n_unreadable = sum(file is not None and not file.shape for file in files)
    if n_unreadable and allow_missing:
        oddities.append(
            f"Modality {modality!r}: files that cannot be read, and so count as missing: "
            f"{n_unreadable:,}."
        )
    if n_mended := sum(
        file is not None and not file.finite and not file.trouble for file in files
    ):
        oddities.append(
            f"Modality {modality!r}: files with values that are not finite, dealt with as "
            f"asked: {n_mended:,}."
        )
    return oddities


def _summarise_modality(
    modality: str, files: Sequence[_File | None], n_absent: int
) -> ModalitySummary:
    found = [file for file in files if file is not None]
    read = [file for file in found if file.shape]
    timed = [file.n_frames for file in read if len(file.shape) == 2]
    return ModalitySummary(
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
