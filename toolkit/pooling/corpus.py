"""Every file of one modality, pooled into one table: row by row, in the manifest's order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolkit.data import ManifestError, SequenceError, read_sequence
from toolkit.pooling.cache import hash_content, load_table, save_table, table_key
from toolkit.pooling.kernels import narrow, pool_frames
from toolkit.pooling.nonfinite import (
    FramesPolicy,
    NonFiniteError,
    check_frames_policy,
    clean_frames,
)
from toolkit.pooling.statistics import PRESETS, VALUE, resolve_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from toolkit.data import Manifest
    from toolkit.pooling.table import FeatureTable


@dataclass(slots=True)
class _Corpus:
    """What has been pooled so far, and what stood against it."""

    statistics: tuple[str, ...]
    missing: str
    frames: FramesPolicy
    rows: list[NDArray[np.float32] | None] = field(default_factory=list)
    n_frames: list[int] = field(default_factory=list)
    kinds: dict[tuple[int, int], str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, where: str, path: Path | None) -> None:
        """Pool one file into the next row, or say what is wrong with it."""
        row, n_frames = None, 0
        if path is None:
            self.counts["files_absent"] += 1
        else:
            try:
                row, n_frames = self._pool(f"{where}, {path}", path)
            except SequenceError as error:
                if self.missing == "allow":
                    self.counts["files_unreadable"] += 1
                else:
                    self.problems.append(f"{where}: {error}")
            except ValueError as error:
                self.problems.append(f"{where}, {path}: {error}")
        self.rows.append(row)
        self.n_frames.append(n_frames)

    def _pool(self, where: str, path: Path) -> tuple[NDArray[np.float32] | None, int]:
        sequence = read_sequence(path)
        self.kinds.setdefault((sequence.ndim, sequence.shape[-1]), where)
        if sequence.ndim == 1:
            return self._take_values(sequence), 0
        clean = clean_frames(sequence, self.frames)
        if len(clean.frames) == 0:
            if self.missing == "refuse":
                raise NonFiniteError("no finite frame is left.")
            self.counts["files_without_finite_frames"] += 1
            return None, 0
        self.counts["frames_dropped"] += clean.n_dropped
        self.counts["frames_interpolated"] += clean.n_interpolated
        self.counts["files_with_dropped_frames"] += clean.n_dropped > 0
        self.counts["files_with_interpolated_frames"] += clean.n_interpolated > 0
        return pool_frames(clean.frames, self.statistics).reshape(-1), len(clean.frames)

    def _take_values(self, sequence: NDArray[Any]) -> NDArray[np.float32]:
        finite = np.isfinite(sequence)
        if not finite.all() and self.missing == "refuse":
            dimension = int(np.argmin(finite))
            raise NonFiniteError(
                f"dimension {dimension} is {sequence[dimension]} ({(~finite).sum()} such "
                "values); expected finite numbers. Write the features again, or allow missing "
                "ones."
            )
        self.counts["values_missing"] += int((~finite).sum())
        known = np.where(finite, sequence, 0).astype(np.float64)
        row: NDArray[np.float32] = narrow(known[None], (VALUE,))[0]
        row[~finite] = np.nan
        return row

    def find_problems(self, modality: str) -> list[str]:
        """Give all that stands against a table."""
        if not self.kinds and not self.problems:
            return [f"modality {modality!r} has no file at all."]
        if len(self.kinds) < 2:
            return self.problems
        seen = "; ".join(
            f"{'a' if axes == 2 else 'no'} time axis and {width} dimensions, first in {first}"
            for (axes, width), first in self.kinds.items()
        )
        return [f"modality {modality!r} has files of several kinds: {seen}.", *self.problems]

    def stack(self, width: int) -> NDArray[np.float32]:
        """Lay the rows into one matrix; a missing one is NaN."""
        values = np.full((len(self.rows), width), np.nan, dtype=np.float32)
        for position, row in enumerate(self.rows):
            if row is not None:
                values[position] = row
        return values


def pool_manifest(
    manifest: Manifest,
    modality: str,
    *,
    statistics: str | Sequence[str] = PRESETS["rich"],
    cache: Path | str,
    missing: Literal["refuse", "allow"] = "refuse",
    frames: FramesPolicy = "refuse",
    progress: Callable[[int, int], None] | None = None,
) -> FeatureTable:
    """Pool every file of one modality, or take the table from the cache.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    modality : str
        One of its modalities.
    statistics : str or sequence of str, default="rich"
        A preset or names. Files without a time axis give the single statistic ``value``.
    cache : Path or str
        Folder of pooled tables. One whose content, statistics and policies are the same is
        taken from there, if its checksums still hold.
    missing : {"refuse", "allow"}, default="refuse"
        Whether unreadable files count as missing modalities, and values of a fixed-size
        feature that are not finite as missing values.
    frames : {"refuse", "drop", "interpolate"}, default="refuse"
        What becomes of frames that are not finite.
    progress : callable, optional
        Told the number of files pooled and their total.

    Returns
    -------
    FeatureTable
        One row an utterance, in the manifest's order.

    Raises
    ------
    ManifestError
        With every file that cannot be pooled, or if the files are of several kinds.
    """
    check_frames_policy(frames)
    names = resolve_statistics(statistics)
    paths = manifest.paths[modality]
    utterances = manifest.utterances.tolist()
    digest = hash_content(utterances, paths)
    folder = Path(cache) / table_key(modality, names, missing, frames, digest=digest)
    if (known := load_table(folder)) is not None:
        return known
    corpus = _Corpus(names, missing, frames)
    for position, (utterance, path) in enumerate(zip(utterances, paths, strict=True)):
        if progress is not None:
            progress(position, len(paths))
        corpus.add(f"utterance {utterance!r}, modality {modality!r}", path)
    if problems := corpus.find_problems(modality):
        raise ManifestError(problems, source=manifest.source)
    ((axes, width),) = corpus.kinds
    kept = names if axes == 2 else (VALUE,)
    return save_table(
        folder,
        modality=modality,
        statistics=kept,
        values=corpus.stack(len(kept) * width),
        present=np.array([row is not None for row in corpus.rows]),
        n_frames=np.array(corpus.n_frames, dtype=np.int64),
        digest=digest,
        counts={name: corpus.counts[name] for name in sorted(corpus.counts)},
    )
