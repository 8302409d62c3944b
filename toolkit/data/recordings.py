"""One recording under two names, found before a study runs."""

from collections import defaultdict
from hashlib import blake2b
from pathlib import Path

from toolkit.data.containers import split_member
from toolkit.data.duplicates import find_duplicates
from toolkit.data.headers import SequenceError
from toolkit.data.manifest import Manifest
from toolkit.data.sequences import read_header, read_sequence


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
        :func:`toolkit.data.duplicates.find_duplicates` gives them.
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
