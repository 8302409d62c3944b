"""Recordings: columns of a table (of words too), segments, samples, and openSMILE's features.

The path of an extracted modality names file, extractor and segment, as in
``talk.wav#egemaps@2.6.0:1.5-3``: whatever keeps numbers by path keeps those of one extractor.
"""

import importlib.metadata
import importlib.util
import io
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.data.containers import file_signature, read_member, split_member
from toolkit.data.headers import SequenceError, SequenceHeader
from toolkit.data.roles import TRANSCRIPTS, Columns, join_words
from toolkit.files import cache_folder, checksum, write_bytes

RECORDINGS: Final = (".wav", ".flac", ".ogg")
#: Extractors of recordings, and the feature set and level of openSMILE that each is.
SOUND_EXTRACTORS: Final = {
    "egemaps": ("eGeMAPSv02", "LowLevelDescriptors"),
    "egemaps-functionals": ("eGeMAPSv02", "Functionals"),
    "mfcc": ("ComParE_2016", "LowLevelDescriptors"),
}
_CLIP = re.compile(r"([a-z-]+)@[^:]+(?::([\d.]+)-([\d.]*))?")
_SPAN = re.compile(r"(?:(\d+) days? )?(\d{1,2}):(\d\d):(\d\d(?:\.\d+)?)")
#: Sentences of libsndfile about a file that ends before its header says.
_CUT_SHORT = re.compile(r"data : (\d+) \(should be (\d+)\)|without an End-Of-Stream")
#: Seconds by which the end of a segment may exceed its recording, since ends are rounded.
_ROUNDED: Final = 0.01
#: In Hz. From a telephone on: openSMILE ends the process at a rate of some Hz.
_RATES: Final = (8_000, 384_000)
#: Samples in a row at full scale; the crest of a loud tone has fewer.
_FULL_SCALE, _CLIPPED_RUN = 0.9999, 3
_LARGEST: Final = 32767 / 32768  # of 16 bits, in which openSMILE computes
#: Seconds of the longest window of these feature sets, below which there is no frame.
_SHORTEST: Final = 0.06
_writing = threading.Lock()


class Sound(NamedTuple):
    """One recording or segment as read.

    - samples: Mean of all channels, from -1 to 1.
    - n_clipped: Runs at full scale.
    """

    samples: NDArray[np.float32]
    rate: int
    n_channels: int
    n_clipped: int
    seconds: float

    @classmethod
    def describe(cls, path: Path) -> "Sound | None":
        """Read one path and forget its samples; None where it is no recording."""
        if not has_recordings([path]):
            return None
        return cls.read(path)._replace(samples=np.empty(0, np.float32))

    @classmethod
    def read(cls, path: Path | str) -> "Sound":
        """Read the samples of one path, of a segment only that part."""
        import soundfile  # noqa: PLC0415  (an extra)

        file, _, start, end = _split_clip(path)
        size = file_signature(file)[2]
        if not size:
            raise SequenceError(f"{file} is empty (0 bytes); copy or record it again.")
        try:
            with soundfile.SoundFile(file) as source:
                rate, n_channels = source.samplerate, source.channels
                if not _RATES[0] <= rate <= _RATES[1]:
                    raise SequenceError(
                        f"{file} has a sample rate of {rate:,} Hz; expected {_RATES[0]:,} to "
                        f"{_RATES[1]:,}. Save it again, at the rate of the others."
                    )
                if cut := _CUT_SHORT.search(source.extra_info):
                    sizes = f": its header announces {cut[1]} bytes of samples, it has {cut[2]}"
                    sizes = sizes if cut[1] else ""
                    raise SequenceError(f"{file} is cut short{sizes}. Copy or save it again.")
                first, n = _find_samples(file, source.frames, rate, start, end)
                header = SequenceHeader.of_array((n, n_channels), np.float32, size, file)
                with header.within_memory(file):
                    source.seek(first)
                    samples = source.read(n, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError, UnicodeError) as error:
            raise SequenceError(
                f"{file} cannot be read as a recording ({str(error).rstrip('.')}); it is "
                "damaged or of another format. Copy it again, or convert it to .wav."
            ) from error
        if len(samples) < n:
            raise SequenceError(f"{file} is cut short. Copy or save it again.")
        if not np.isfinite(samples).all():
            raise SequenceError(f"{file} has samples that are not finite; save it again.")
        full = (np.abs(samples) >= _FULL_SCALE).any(axis=1)
        edges = np.flatnonzero(np.diff(full, prepend=False, append=False))
        n_clipped = int((edges[1::2] - edges[::2] >= _CLIPPED_RUN).sum())
        # Beyond full scale, openSMILE's 16 bits would turn the sign.
        mono = samples.mean(axis=1).clip(-1, _LARGEST)
        return cls(mono, rate, n_channels, n_clipped, len(mono) / rate)

    @staticmethod
    def describe_all(where: str, sounds: Sequence[tuple[Path, "Sound"]]) -> list[str]:
        """Describe the recordings of one modality in sentences."""
        if not sounds:
            return []
        clips, n = [_split_clip(path) for path, _ in sounds], len(sounds)
        files = len({clip.file for clip in clips})
        hours = sum(sound.seconds for _, sound in sounds) / 3600
        duration = f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
        rates = Counter(sound.rate for _, sound in sounds)
        channels = Counter(sound.n_channels for _, sound in sounds)
        sizes = f"{files:,} recordings, {duration}, {_count(rates, 'Hz')}"
        sizes = sizes if files == n else f"{n:,} segments of {sizes}"
        by = f"{clips[0].extractor} of openSMILE {importlib.metadata.version('opensmile')}"
        notes = [f"{where}: {sizes}, {_count(channels, 'channels')}; features by {by}."]
        if len(rates) > 1:
            notes.append(
                f"{where}: recordings have several sample rates, and features of the spectrum "
                "depend on the rate. If people or classes differ in it, resample all to the "
                "lowest."
            )
        if n_mixed := n - channels[1]:
            notes.append(
                f"{where}: {n_mixed:,} of {n:,} have several channels, whose mean was used. "
                "Where channels are people, save the channel of each in a file of its own."
            )
        if runs := [sound.n_clipped for _, sound in sounds if sound.n_clipped]:
            notes.append(
                f"{where}: {len(runs):,} of {n:,} are clipped: {sum(runs):,} times, "
                f"{_CLIPPED_RUN} samples or more in a row are at full scale."
            )
        return notes


def _find_samples(
    file: Path, n_samples: int, rate: int, start: float, end: float | None
) -> tuple[int, int]:
    """Find the first sample of a segment and their number."""
    if not n_samples:
        raise SequenceError(f"{file} holds no samples; copy or record it again.")
    seconds = n_samples / rate
    if start >= seconds or (end is not None and end > seconds + _ROUNDED):
        asked = f"{start:g} s to {'its end' if end is None else f'{end:g} s'}"
        raise SequenceError(
            f"{file} takes {seconds:.2f} s, and columns 'start' and 'end' ask for {asked}. "
            "Correct them; rename them if they are no places in this file."
        )
    first = round(start * rate)
    last = n_samples if end is None else min(round(end * rate), n_samples)
    return first, last - first


class _Clip(NamedTuple):
    file: Path
    extractor: str
    start: float
    end: float | None


def _split_clip(path: Path | str) -> _Clip:
    """Split the path of an extracted modality; the end is None where the recording ends."""
    member = split_member(path)
    parts = _CLIP.fullmatch(member.name or "") if member else None
    if member is None or parts is None:
        raise SequenceError(f"{path} names no recording and extractor.")
    start, end = float(parts[2] or 0), float(parts[3]) if parts[3] else None
    return _Clip(member.file, parts[1], start, end)


def is_recording(cell: Path | str) -> bool:
    """Whether a file name ends like a recording that can be read."""
    return str(cell).casefold().endswith(RECORDINGS)


def has_recordings(paths: Iterable[Path | None]) -> bool:
    """Whether features are computed from recordings, which takes longer than to read them."""
    member = next((split_member(path) for path in paths if path is not None), None)
    return member is not None and is_recording(member.file)


def name_versions(extractors: Iterable[str]) -> dict[str, str]:
    """Name the version of the library that extractors of recordings are of."""
    if not any(name in SOUND_EXTRACTORS for name in extractors):
        return {}
    return {"opensmile": importlib.metadata.version("opensmile")}


def find_sources(
    table: Columns, extract: Mapping[str, str], lists_files: Callable[[Sequence[str]], bool]
) -> dict[str, int]:
    """Find the column of recordings or words that features of a modality are computed from.

    It is the one that a user named, else that of its name, else the only one.
    """
    rows, ids = table.rows, table.roles.get("utterance")
    free = [i for i in range(len(rows.header)) if i not in table.roles.values()]
    lists = [i for i in free if any(map(is_recording, rows.column(i)))]
    if not lists and ids is not None and any(map(is_recording, rows.column(ids))):
        lists = [ids]  # names of files may be the ids
    found: dict[str, int] = {}
    for modality, extractor in extract.items():
        is_text = extractor not in SOUND_EXTRACTORS
        names = {modality, *(TRANSCRIPTS if is_text else ())}
        columns = [i for i in free if join_words(rows.header[i]) in names]
        if is_text:
            columns = [i for i in columns if not lists_files(rows.column(i))]
        else:
            columns = columns or lists
        if modality in table.modalities:
            columns = [table.modalities[modality]]
        if len(columns) == 1:
            found[modality] = columns[0]
            continue
        given = ", ".join(repr(rows.header[i]) for i in columns or range(len(rows.header)))
        kind = "words" if is_text else f"recordings ({', '.join(RECORDINGS)})"
        rows.problems.add(
            f"--extract {modality}={extractor}: {'several' if columns else 'no'} columns could "
            f"be those of {kind}: {given}. Choose one with --column {modality}=HEADER."
        )
    return found


def name_clips(
    table: Columns,
    kept: Sequence[int],
    modality: str,
    extractor: str,
    files: Sequence[Path | None],
) -> tuple[Path | None, ...]:
    """Name the features of the recordings or segments of the kept rows by one path each."""
    spans = _read_spans(table, kept)
    if lacking := [n for n in ("opensmile", "soundfile") if not importlib.util.find_spec(n)]:
        option = (
            f"--extract {modality}={extractor} needs {' and '.join(lacking)}, not installed"
        )
        table.rows.problems.add(f"{option}: pip install opensmile soundfile")
        return tuple(files)
    name = f"{extractor}@{importlib.metadata.version('opensmile')}"
    pairs = zip(files, spans, strict=True)
    return tuple(None if file is None else Path(f"{file}#{name}{span}") for file, span in pairs)


def _read_spans(table: Columns, kept: Sequence[int]) -> list[str]:
    """Read the columns ``start`` and ``end`` of the kept rows, as the ends of paths."""
    rows, places = table.rows, table.find_times()
    spans = list[str]()
    for i in kept:
        times = {"start": 0.0, "end": math.inf}
        for name, position in places.items():
            cell = rows.cells[i][position]
            if cell.casefold() in {"", "nat", "nan"}:
                continue
            times[name] = _parse_seconds(cell)
            if math.isnan(times[name]):
                text = f"{cell!r} is no time; write seconds, or 0 days 00:00:01.5 as pandas."
                rows.problems.add(text, row=rows.numbers[i], column=rows.header[position])
        start, end = times["start"], times["end"]
        if start >= end:
            text = f"the segment ends at {end:g} s and starts at {start:g} s."
            rows.problems.add(text, row=rows.numbers[i], column=rows.header[places["end"]])
        whole = start == 0 and math.isinf(end)
        spans.append("" if whole else f":{start:.9f}-{'' if math.isinf(end) else f'{end:.9f}'}")
    return spans


def _parse_seconds(cell: str) -> float:
    """Read a time from 0 on; NaN if it is none."""
    if parts := _SPAN.fullmatch(cell):
        days, hours, minutes = (int(part or 0) for part in parts.groups()[:3])
        return ((days * 24 + hours) * 60 + minutes) * 60 + float(parts[4])
    return float(cell) if re.fullmatch(r"\d+(\.\d*)?|\.\d+", cell) else math.nan


def _count(values: Counter[int], unit: str) -> str:
    return " and ".join(
        f"{value:,} {unit if value != 1 else unit.rstrip('s')}"
        + (f" ({n:,})" if len(values) > 1 else "")
        for value, n in sorted(values.items())
    )


def extract_features(path: Path | str) -> NDArray[np.float32]:
    """Compute the features of one recording or segment, or take them from the cache.

    They have shape (n_frames, n_dims), or (n_dims,) where they are functionals.
    """
    sound, (file, extractor, *_) = Sound.read(path), _split_clip(path)
    if sound.seconds < _SHORTEST:
        raise SequenceError(
            f"{file}: {sound.seconds:.3f} s of sound give no frame; at least {_SHORTEST:g} s "
            "are needed. Leave its cell in the table empty if nothing was recorded."
        )
    smile, columns, version = _load_extractor(extractor)
    key = checksum(sound.samples, f"{sound.rate} {extractor} {version}".encode())
    kept = cache_folder() / "extracted" / f"{key}.npz"
    with suppress(SequenceError):  # not kept yet, or damaged
        return read_member(f"{kept}#features")
    numbers = smile(sound.samples, sound.rate)[0, columns].T
    numbers = numbers[0] if extractor.endswith("functionals") else numbers
    features: NDArray[np.float32] = np.ascontiguousarray(numbers, np.float32)
    content = io.BytesIO()
    np.savez(content, features=features)
    with _writing:  # threads may have the same samples
        write_bytes(kept, content.getvalue())
    return features


def name_features(path: Path | str) -> tuple[str, ...]:
    """Name the dimensions of the extractor of a path, in their order."""
    smile, columns, _ = _load_extractor(_split_clip(path).extractor)
    return tuple(smile.feature_names[i] for i in columns)


@lru_cache(maxsize=8)
def _load_extractor(extractor: str) -> tuple[Any, list[int], str]:
    import opensmile  # noqa: PLC0415  (an extra)

    feature_set, level = SOUND_EXTRACTORS[extractor]
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet[feature_set],
        feature_level=opensmile.FeatureLevel[level],
    )
    names = smile.feature_names
    columns = [i for i, n in enumerate(names) if extractor != "mfcc" or n.startswith("mfcc")]
    return smile, columns, opensmile.__version__
