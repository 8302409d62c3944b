"""Files and headers that are no features as they are, and the way from these to features."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from toolkit.data.roles import join_words

CONVERT = "Save the numbers of each as .npy: np.save(path + '.npy', "
#: What to do with files of other endings, which are no features or features in other formats.
READERS: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        ("txt",): f"{CONVERT}np.genfromtxt(path)), or name each .csv, if its first line names "
        "the columns.",
        ("wav", "flac", "ogg"): "They are recordings: --extract audio=egemaps (or mfcc) "
        "computes features of them, or name files of features of a speech model.",
        ("mp3", "m4a", "aac"): "They are recordings: convert them to .wav for --extract "
        "audio=egemaps, or extract features first, for example with a speech model.",
        ("mp4", "avi", "mov", "mkv", "webm", "jpg", "jpeg", "png"): "They are recordings: "
        "extract features first, for example with OpenFace or a vision model.",
        ("pt", "pth"): f"{CONVERT}torch.load(path, weights_only=True).numpy()).",
        ("safetensors",): f"{CONVERT}safetensors.numpy.load_file(path)['NAME']).",
        ("mat",): f"{CONVERT}scipy.io.loadmat(path)['NAME']).",
        ("pkl", "pickle", "p", "joblib"): "A pickle can run any code. Where you trust it, load "
        "it yourself, and save each array with np.save, as the recipe for MOSI and MOSEI does.",
        ("json",): f"{CONVERT}np.array(json.load(open(path)), 'f4')).",
        ("jsonl",): "Write a table with a column per feature: pandas.read_json(path, "
        "lines=True).to_csv(path + '.csv', index=False).",
        ("feather",): f"{CONVERT}pandas.read_feather(path).to_numpy('f4')).",
    }
)
#: A path that ends in the letters of an ending.
OTHER_FILE = re.compile(r"[^\n]*[\w)]\.([A-Za-z][A-Za-z0-9]{0,10})")
#: Known layouts, and the words of the headers that show them.
_LAYOUTS = {
    "openSMILE (name;frameTime;...)": ("name", "frame_time"),
    "OpenFace (frame, face_id, timestamp, confidence, success, ...)": (
        *("frame", "timestamp", "face_id", "confidence", "success"),
    ),
    "opensmile-python (file,start,end,...)": ("file", "start", "end"),
    "a table of utterances (id,...)": ("id",),
    "frames with times (time,...)": ("time",),
}
_MOST_SHOWN = 80


def advise(ending: str) -> str:
    """Say what to do with files of an ending, which is without its point."""
    known = (advice for endings, advice in READERS.items() if ending.casefold() in endings)
    return next(known, f"{CONVERT}array).")


def describe_file(file: Path) -> str:
    """Describe a file that is not read by its first bytes; empty for an empty file."""
    try:
        with file.open("rb") as content:
            start = content.read(4 * _MOST_SHOWN)
    except OSError:
        return ""
    text = start[8:] if start[8:9] == b"{" else start  # the header of safetensors is JSON
    first = text.decode("utf-8", "replace").strip().split("\n", 1)[0].strip()[:_MOST_SHOWN]
    kinds = {b"\x80": "a pickle", b"PK\x03\x04": "a ZIP archive", b"\x89HDF": "HDF5"}
    seen = next((kind for sign, kind in kinds.items() if start.startswith(sign)), repr(first))
    return f" It begins as {seen}. {advise(file.suffix.removeprefix('.'))}" if start else ""


def describe_header(header: Sequence[str]) -> str:
    """Say what the header of a table is, and which known layout is nearest."""
    words = {*map(join_words, header)}
    # The largest part of the words of a layout that the header has.
    near, parts = max(_LAYOUTS.items(), key=lambda item: len(words & {*item[1]}) / len(item[1]))
    lacks = [repr(word) for word in parts if word not in words]
    differs = f"which also has {', '.join(lacks)}" if lacks else "whose columns it has"
    nearest = f"the nearest known layout is {near}, {differs}"
    shown = ", ".join(repr(name[:_MOST_SHOWN]) for name in header[:5])
    shown += ", ..." if len(header) > 5 else ""
    seen = f"Its {len(header):,} columns are {shown}"
    return f"{seen}; {nearest if words & {*parts} else 'no known layout is near'}."
