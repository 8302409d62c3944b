"""The content of a data set: the summary of ``toolkit check``, its problems and notes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data.audio import Sound, has_recordings
from toolkit.data.csv_table import Problems
from toolkit.data.examination import FileFacts, compare_files, find_shared
from toolkit.data.manifest import Manifest

# A fault of more files than this is one problem, with their number and some of their names.
_MOST_ALONE = 3
_MOST_NAMED = 5
_MANY = 0.05  # share of a modality's files from which on padding is no accident


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
    n_sessions, n_contents : int or None
        Number of sessions, and of scripts, scenes or sentences; None if they are unknown.
    modalities : tuple of _ModalitySummary
        In the order of the columns.
    n_complete : int
        Utterances with a readable file in every modality.
    present : mapping of str to ndarray of bool, shape (n_utterances,)
        Whether a modality can be pooled, per utterance of the manifest.
    problems, warnings : tuple of str
        Sentences for what must be solved before a study can run, and for the reader of the
        results, those of the table first.
    notes : mapping of str to tuple of str
        The warnings about the files of each modality.
    """

    source: str
    generated: bool
    classes: tuple[str, ...]
    speakers: tuple[str, ...]
    counts: NDArray[np.int64]
    n_sessions: int | None
    n_contents: int | None
    modalities: tuple[_ModalitySummary, ...]
    n_complete: int
    present: Mapping[str, NDArray[np.bool_]]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: Mapping[str, tuple[str, ...]]

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
    alone: str | None = None,
    n_threads: int = 1,
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
    alone : str, optional
        Modality whose files are read; of the others only those of rows in which it seems to
        hold another speaker's numbers.
    n_threads : int, default=1
        Recordings whose features are computed at the same time.

    Returns
    -------
    DatasetSummary
        Counts, and sentences for the problems and warnings.
    """
    allow_missing = missing == "allow"
    total = sum(path is not None for paths in manifest.paths.values() for path in paths)
    done = count(1)

    read = partial(FileFacts.read, frames=frames, allow_missing=allow_missing)

    def read_all(paths: Sequence[Path | None]) -> list[FileFacts]:
        workers = n_threads if has_recordings(paths) else 1
        facts = []
        with ThreadPoolExecutor(workers) as threads:
            # An interrupt ends the iterator, which cancels the other files.
            for each in map(read, paths) if workers == 1 else threads.map(read, paths):
                facts.append(each)
                if each.path is not None and progress is not None:
                    progress(next(done), total)
        return facts

    files: dict[str, list[FileFacts]] = {}
    rows = {*range(len(manifest))}
    if alone is not None and alone not in manifest.texts:
        files[alone] = read_all(manifest.paths[alone])
        keys = [file.key for file in files[alone]]
        rows = {*find_shared(keys, manifest.speakers.tolist())}
    for modality in manifest.modalities:
        if modality in manifest.texts:
            files[modality] = [*map(FileFacts.of_text, manifest.paths[modality])]
        elif modality != alone:
            paths = enumerate(manifest.paths[modality])
            files[modality] = read_all([path if row in rows else None for row, path in paths])

    utterances = manifest.utterances.tolist()
    problems = list[str]()
    recordings, coincidences = compare_files(manifest, files)
    notes: dict[str, tuple[str, ...]] = {}
    for modality in manifest.modalities if alone is None else (alone,):
        column = files[modality]
        problems += _find_problems(modality, utterances, column, allow_missing=allow_missing)
        found = _find_notes(
            modality, utterances, column, frames=frames, allow_missing=allow_missing
        )
        notes[modality] = (*found, *coincidences[modality])
    warnings = [*manifest.warnings, *chain.from_iterable(notes.values()), *coincidences[""]]
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
        n_sessions=_count_names(manifest.sessions),
        n_contents=_count_names(manifest.contents),
        modalities=tuple(
            _summarise_modality(modality, column, manifest.absent.get(modality, 0))
            for modality, column in files.items()
        ),
        n_complete=sum(
            all(file.shape for file in row) for row in zip(*files.values(), strict=True)
        ),
        present={
            modality: np.array([file.usable for file in column], dtype=bool)
            for modality, column in files.items()
        },
        problems=tuple(problems),
        warnings=tuple(warnings),
        notes=notes,
    )


def _count_names(names: NDArray[np.str_] | None) -> int | None:
    return None if names is None else len(set(names.tolist()))


def _find_problems(
    modality: str, utterances: Sequence[str], files: Sequence[FileFacts], *, allow_missing: bool
) -> list[str]:
    """Describe the problems of the files of one modality."""
    turned = _find_turned(modality, files)
    faults: list[tuple[str, FileFacts, str]] = []
    kinds = Counter(file.kind for file in files if file.shape)
    usual = kinds.most_common(1)[0][0] if kinds else None
    for utterance, file in zip(utterances, files, strict=True):
        if file.problem and not (file.refused and turned):
            faults.append((utterance, file, file.problem))
        if file.shape and usual is not None and file.kind != usual and not turned:
            text = (
                f"{file.path} has {_describe_kind(file.kind)}, and {kinds[usual]:,} of "
                f"{kinds.total():,} files have {_describe_kind(usual)}; all must be alike."
            )
            faults.append((utterance, file, text))
    if allow_missing:
        faults = [fault for fault in faults if fault[1].shape]
    if not turned and not faults and not any(file.usable for file in files):
        return [f"Modality {modality!r} has no file that can be used; leave it out."]
    return turned + _gather(modality, faults)


def _gather(modality: str, faults: Sequence[tuple[str, FileFacts, str]]) -> list[str]:
    """Describe each fault, and one of many files once, with their number."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for utterance, file, text in faults:
        kind = Problems.kind_of(text.replace(str(file.path), ""))
        alike.setdefault(kind, []).append((utterance, text))
    problems = list[str]()
    for group in alike.values():
        if len(group) <= _MOST_ALONE:
            problems += [
                f"utterance {utterance!r}, modality {modality!r}: {text}"
                for utterance, text in group
            ]
            continue
        (first, text), *others = group
        names = ", ".join(repr(utterance) for utterance, _ in others[:_MOST_NAMED])
        dots = ", ..." if len(others) > _MOST_NAMED else ""
        problems.append(
            f"modality {modality!r}: {len(group):,} files have one fault, as in utterance "
            f"{first!r}: {text} The others are of {names}{dots}"
        )
    return problems


def _find_turned(modality: str, files: Sequence[FileFacts]) -> list[str]:
    """Describe arrays whose time is on another axis than the first, by the axis that varies."""
    flat = {file.shape for file in files if len(file.shape) == 2}
    deep = {f.refused for f in files if len(f.refused) == 3 and f.refused[0] == 1}
    for shapes, step in ((flat, ""), ({shape[1:] for shape in deep}, "[0]")):
        heights, widths = ({shape[axis] for shape in shapes} for axis in (0, 1))
        if len(heights) == 1 and len(widths) > 1:
            fixed, varied, turn = heights, widths, f"{step}.T"
        elif step and len(widths) == 1 and len(heights) > 1:
            fixed, varied, turn = widths, heights, step
        else:
            continue
        axis = {".T": "second", "[0].T": "third", "[0]": "second of three"}[turn]
        sentence = (
            f"Modality {modality!r}: one axis has {fixed.pop():,} entries in all files and the "
            f"{axis} has {min(varied):,} to {max(varied):,}. That one is time, and a row must "
            f"be a frame. Save each file again: np.save(path, np.load(path){turn})."
        )
        return [sentence]
    return []


def _describe_kind(kind: tuple[int, int]) -> str:
    axes, n_dims = kind
    return f"{n_dims:,} dimensions and {'a' if axes == 2 else 'no'} time axis"


def _find_notes(
    modality: str,
    utterances: Sequence[str],
    files: Sequence[FileFacts],
    *,
    frames: str,
    allow_missing: bool,
) -> list[str]:
    """Describe what the options allow, and frames that are perhaps none."""
    where = f"Modality {modality!r}"
    notes = Sound.describe_all(where, [(f.path, f.sound) for f in files if f.path and f.sound])
    n_unreadable = sum(file.path is not None and not file.shape for file in files)
    if n_unreadable and allow_missing:
        notes.append(
            f"{where}: files that cannot be read, and so count as missing: {n_unreadable:,}."
        )
    repaired = [file for file in files if file.gaps and not file.problem]
    if repaired:
        notes.append(
            f"{where}: files with values that are not finite, dealt with as asked: "
            f"{len(repaired):,}."
        )
        notes += _count_dimensions(where, repaired, frames)
    read = [file for file in files if file.shape]
    padded = [file for file in read if file.padding > 1]
    if len(padded) > max(1, _MANY * len(read)):
        notes.append(
            f"{where}: {len(padded):,} of {len(read):,} files begin or end with several frames "
            "of zeros. If that is padding, it is pooled like speech: save the files without it."
        )
    still = [u for u, file in zip(utterances, files, strict=True) if file.still]
    if still and len(still) < len(read):
        notes.append(
            f"{where}: {len(still):,} files hold one frame or number throughout, as where no "
            f"face was found: {_shorten([*map(repr, still)])}. Empty their cells if nothing "
            "was recorded."
        )
    timed = {file.shape for file in read if len(file.shape) == 2}
    if len(timed) == 1 and len(read) > 2:
        n_frames, n_dims = timed.pop()
        if 1 < n_frames < n_dims:
            notes.append(
                f"{where}: every file has {n_frames:,} frames of {n_dims:,} dimensions. If the "
                "second axis is time, save each file again: np.save(path, np.load(path).T)."
            )
    return notes


def _count_dimensions(where: str, files: Sequence[FileFacts], frames: str) -> list[str]:
    """Count per dimension the values that were treated, and the files without any."""
    treated, files_of, dead = Counter[int](), Counter[int](), Counter[int]()
    for file in files:
        dead.update(file.dead)
        for dimension, n_values in file.gaps:
            if dimension not in file.dead and len(file.shape) == 2 and file.usable:
                treated[dimension] += n_values
                files_of[dimension] += 1
    done = "interpolated" if frames == "interpolate" else "dropped with their frames"
    notes = []
    if treated:
        listed = [f"{n:,} of dimension {k} in {files_of[k]:,} files" for k, n in _sort(treated)]
        notes.append(f"{where}, values {done}: {_shorten(listed)}.")
    if dead:
        listed = [f"dimension {k} in {n:,} files" for k, n in _sort(dead)]
        notes.append(
            f"{where}, no finite value, so that its features are missing: {_shorten(listed)}."
        )
    return notes


def _sort(counts: Counter[int]) -> list[tuple[int, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _shorten(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + rest


def _summarise_modality(
    modality: str, files: Sequence[FileFacts], n_absent: int
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
        n_not_finite=sum(bool(file.gaps) for file in read),
        dims=MappingProxyType(dict(Counter(file.shape[-1] for file in read).most_common())),
        has_time=2 * len(timed) > len(read) if read else None,
        n_frames=(min(timed), float(median(timed)), max(timed)) if timed else None,
        n_bytes=sum(file.n_bytes for file in read),
    )
