"""What a data set holds, file by file: the numbers behind ``toolkit check``."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data.containers import split_member
from toolkit.data.headers import SequenceError
from toolkit.data.manifest import Manifest
from toolkit.data.sequences import read_header, read_sequence

# Two people hardly ever share the numbers of so many frames, but a short word said by both
# may well have one vector, and so may two silent clips of a frame or two.
FRAMES_OF_A_RECORDING = 5
_NAMED = 3


def find_duplicates(
    utterances: Sequence[str],
    speakers: Sequence[str],
    digests: Mapping[str, Sequence[bytes | None]],
    n_frames: Sequence[int],
) -> tuple[list[str], list[str]]:
    """Find recordings that stand under several speakers, and utterances that merely coincide.

    A recording under two names is in the training and in the test rows at once, whatever the
    split by speakers. Utterances of two speakers are taken for one recording if they hold the
    same numbers in every modality and have at least five frames in one.

    Examples
    --------
    >>> digests = {"audio": [b"hm", b"hm", b"no", b"no"], "text": [b"ok", b"ok", None, b"no"]}
    >>> recordings, coincidences = find_duplicates("abcd", "FMFM", digests, [80, 80, 90, 90])
    >>> print(*recordings)
    Utterances 'a' and 'b' of speakers 'F' and 'M' hold the same numbers in every modality: one
    recording under several names. Keep one of them, or allow it with --duplicates allow.
    >>> print(*coincidences)
    Modality 'audio': 2 utterances hold the same numbers as another speaker's, such as 'c' and
    'd'.
    """
    recordings, coincidences = list[str](), list[str]()
    by_chance, again, told = list[int](), list[int](), set[int]()
    rows = list(zip(*digests.values(), strict=True))
    for group in _group([row if any(row) else None for row in rows]):
        names = sorted({speakers[i] for i in group})
        recorded = n_frames[group[0]] >= FRAMES_OF_A_RECORDING
        if len(names) == 1:
            again += group[1:] if recorded else []
            continue
        told.update(group)
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
            f"every modality, with fewer than {FRAMES_OF_A_RECORDING} frames, such as "
            f"{_list([utterances[i] for i in by_chance])}."
        )
    if again:
        coincidences.append(
            "Utterances that repeat another of the same speaker in every modality, and so "
            f"count twice: {len(again):,}, such as {_list([utterances[i] for i in again])}."
        )
    for modality, column in digests.items():
        groups = [group for group in _group(column) if len({speakers[i] for i in group}) > 1]
        if shared := sorted({i for group in groups for i in group} - told):
            coincidences.append(
                f"Modality {modality!r}: {len(shared):,} utterances hold the same numbers as "
                f"another speaker's, such as {_list([utterances[i] for i in shared])}."
            )
    return recordings, coincidences


def _group(keys: Sequence[Hashable]) -> list[list[int]]:
    """Group the positions of equal keys, without None and without keys that stand alone."""
    groups: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def _list(names: Sequence[str]) -> str:
    """Name at most three, and count the rest."""
    shown = [repr(str(name)) for name in names[:_NAMED]]
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED:,} more")
    *first, last = shown
    return f"{', '.join(first)} and {last}" if first else last


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


def find_recordings(manifest: Manifest) -> list[str]:
    """Find recordings that stand under several speakers, reading as few files as possible.

    Files of different sizes cannot be the same, so only utterances whose files agree in size
    in every modality are read.

    Parameters
    ----------
    manifest : Manifest
        The utterances and their files.

    Returns
    -------
    list of str
        One sentence for each recording that stands under several speakers, as
        :func:`toolkit.data.summary.find_duplicates` gives them.
    """
    by_size: dict[tuple[int | None, ...], list[int]] = defaultdict(list)
    for row in range(len(manifest)):
        sizes = (
            None if path is None else _measure(path)
            for path in (paths[row] for paths in manifest.paths.values())
        )
        by_size[tuple(sizes)].append(row)
    suspects = [
        row
        for rows in by_size.values()
        if len({manifest.speakers[row] for row in rows}) > 1
        for row in rows
    ]
    # A recording has frames; rows of fixed-size features alone are never taken for one.
    timed = [row for row in suspects if _most_frames(manifest, row) > 0]
    recordings, _ = find_duplicates(
        manifest.utterances[timed].tolist(),
        manifest.speakers[timed].tolist(),
        {
            modality: [
                None if path is None else _digest(path)
                for path in (paths[row] for row in timed)
            ]
            for modality, paths in manifest.paths.items()
        },
        [_most_frames(manifest, row) for row in timed],
    )
    return recordings


def _measure(path: Path) -> int:
    """Bytes of a file, or of the numbers of one array of a file of many."""
    if split_member(path) is None:
        return path.stat().st_size
    try:
        return read_header(path).n_bytes
    except SequenceError:  # whoever needs the array says what is wrong with it
        return 0


def _digest(path: Path) -> bytes | None:
    if split_member(path) is None:
        return blake2b(path.read_bytes()).digest()
    try:
        return blake2b(read_sequence(path).data).digest()
    except SequenceError:
        return None


def _most_frames(manifest: Manifest, row: int) -> int:
    frames = [0]
    for paths in manifest.paths.values():
        path = paths[row]
        if path is None:
            continue
        try:
            header = read_header(path)
        except SequenceError:  # whoever needs the file says what is wrong with it
            continue
        frames.append(header.n_frames if header.has_time else 0)
    return max(frames)
