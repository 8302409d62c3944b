"""Columns of paths to other files than features, and the way from these to features."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

_CONVERT = "Save the numbers of each as .npy: np.save(path + '.npy', "
#: What to do with files of other endings, which are no features or features in other formats.
_READERS: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        ("csv", "tsv", "txt"): f"{_CONVERT}np.genfromtxt(path, delimiter=';', skip_header=1)"
        "[:, 2:].astype('f4')) for openSMILE, whose first two columns are name and time; other "
        "delimiters and columns elsewhere.",
        ("wav", "mp3", "flac", "ogg", "m4a", "aac"): "They are recordings: extract features "
        "first, for example with openSMILE or a speech model.",
        ("mp4", "avi", "mov", "mkv", "webm", "jpg", "jpeg", "png"): "They are recordings: "
        "extract features first, for example with OpenFace or a vision model.",
        ("pt", "pth"): f"{_CONVERT}torch.load(path, weights_only=True).numpy()).",
        ("mat",): f"{_CONVERT}scipy.io.loadmat(path)['NAME']).",
        ("pkl", "pickle"): "A pickle can run any code. Where you trust it, load it yourself, "
        "and save each array with np.save.",
        ("arff",): f"{_CONVERT}np.array(scipy.io.arff.loadarff(path)[0].tolist(), object)) "
        "without the columns of words.",
        ("json", "jsonl"): f"{_CONVERT}np.array(json.load(open(path)), 'f4')).",
        ("pkl.gz", "feather", "xlsx"): f"{_CONVERT}pandas.read_...(path).to_numpy('f4')).",
    }
)
_OTHER_FILE = re.compile(r"[^\n]*[\w)]\.([A-Za-z][A-Za-z0-9]{0,7})")


def explain_paths(cells: Sequence[str]) -> str:
    """Describe the files that most cells name, with the way to features; empty if none do."""
    matches = [match for cell in cells if (match := _OTHER_FILE.fullmatch(cell))]
    if cells and 2 * len(matches) > len(cells):
        ending = Counter(match[1].casefold() for match in matches).most_common(1)[0][0]
        known = (advice for endings, advice in _READERS.items() if ending in endings)
        return f"it lists .{ending} files. {next(known, f'{_CONVERT}array).')}"
    if cells and all("/" in cell or "\\" in cell for cell in cells):
        return "its cells look like paths without an ending. Name one .npy file in each."
    return ""
