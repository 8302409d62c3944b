"""Columns of paths to other files than features, and the way from these to features."""

import re
from collections.abc import Mapping
from types import MappingProxyType

CONVERT = "Save the numbers of each as .npy: np.save(path + '.npy', "
#: What to do with files of other endings, which are no features or features in other formats.
READERS: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        ("txt",): f"{CONVERT}np.genfromtxt(path)), or name each .csv, if its first line names "
        "the columns.",
        ("wav", "mp3", "flac", "ogg", "m4a", "aac"): "They are recordings: extract features "
        "first, for example with openSMILE or a speech model.",
        ("mp4", "avi", "mov", "mkv", "webm", "jpg", "jpeg", "png"): "They are recordings: "
        "extract features first, for example with OpenFace or a vision model.",
        ("pt", "pth"): f"{CONVERT}torch.load(path, weights_only=True).numpy()).",
        ("mat",): f"{CONVERT}scipy.io.loadmat(path)['NAME']).",
        ("pkl", "pickle"): "A pickle can run any code. Where you trust it, load it yourself, "
        "and save each array with np.save.",
        ("json",): f"{CONVERT}np.array(json.load(open(path)), 'f4')).",
        ("feather",): f"{CONVERT}pandas.read_feather(path).to_numpy('f4')).",
    }
)
#: A path that ends in the letters of an ending.
OTHER_FILE = re.compile(r"[^\n]*[\w)]\.([A-Za-z][A-Za-z0-9]{0,7})")
