"""A generated corpus in the layout of IEMOCAP; ``PLANTED`` lists its effects."""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from numpy.random import SFC64

from toolkit.data.planted import (
    CLASSES,
    PLANTED,
    Frames,
    Utterance,
    make_features,
    random_stream,
)
from toolkit.data.roles import NAMED_MODALITIES

CORPUS_VERSION = "2"
"""Changes whenever the same call would write other bytes."""

GENERATED_MARKER = "generated.json"
"""Name of the file that marks a table as generated."""

# The four classes of the recordings handed out with the exercise, and of all IEMOCAP, where
# excitement counts as happiness.
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

    Ten speakers talk in pairs in five sessions; anger, sadness, happiness and neutral have
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
        _write_table(draft / "dataset.csv", rows)
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


def _compose(full: bool, n_utterances: int | None, seed: int) -> list[Utterance]:
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
    stream = random_stream(seed, "dialogues")
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
                Utterance(
                    name,
                    speaker,
                    f"Session{session}",
                    dialogues[dialogue],
                    CLASSES[label],
                    _draw_length(random_stream(seed, "frames", name), *_FRAMES[full]),
                )
            )
    return utterances


def _apportion_classes(counts: Sequence[int]) -> dict[str, list[int]]:
    """List the classes of each speaker; some people are angrier than others."""
    labels: dict[str, list[int]] = {speaker: [] for speaker in _SPEAKERS}
    for label, total in enumerate(counts):
        moods = random_stream(0, "moods", CLASSES[label])
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
    utterances: Sequence[Utterance],
    n_dims: Mapping[str, int],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> list[list[str]]:
    """Write one file per utterance and modality; return the rows of the table."""
    n_missing = round(len(utterances) * _SHARE_WITHOUT_VISUAL)
    names = [utterance.name for utterance in utterances]
    names.sort(key=lambda name: int(random_stream(seed, "missing", name).random_raw()))
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
            features = make_features(seed, modality, n_dims[modality], utterance)
            path = f"features/{column}/{utterance.session}/{utterance.name}.npy"
            _write_npy(folder / path, features)
            row.append(f"/{path}")
        rows.append([*row, str(CLASSES.index(utterance.label))])
        if progress is not None:
            progress(n_done, len(utterances))
    return rows


def _write_npy(path: Path, array: Frames) -> None:
    """Write like np.save, with a padding of the header that no later numpy changes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {array.shape}, }}"
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little"))
        file.write(header.ljust(117).encode("ascii") + b"\n")
        file.write(array.astype("<f4", copy=False).data)


def _write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    columns = ("file_name_list", "speakers", *_COLUMNS.values(), "emotion_labels")
    with path.open("w", encoding="utf-8", newline="") as file:
        # The original has blanks after the commas of its first line.
        file.write(", ".join(columns) + "\n")
        csv.writer(file, lineterminator="\n").writerows(rows)


def _write_marker(path: Path, n_dims: Mapping[str, int], n_utterances: int, seed: int) -> None:
    planted: dict[str, list[dict[str, object]]] = {modality: [] for modality in PLANTED}
    for modality, blocks in PLANTED.items():
        for block in blocks:
            dims = block.dimensions(n_dims[modality])
            planted[modality].append(
                {
                    "kind": block.kind,
                    "dimensions": [dims.start, dims.stop],
                    "gain": block.gain,
                    "doubt": block.doubt,
                    "shown_by": block.shown_by,
                }
            )
    marker = {
        "note": "This corpus is generated: no person spoke any of it.",
        "version": CORPUS_VERSION,
        "seed": seed,
        "n_utterances": n_utterances,
        "classes": {str(code): name for code, name in enumerate(CLASSES)},
        "planted": planted,
    }
    text = json.dumps(marker, indent=2) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
