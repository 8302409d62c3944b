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
        ("arff",): "Write them as CSV: openSMILE does with -csvoutput and -lldcsvoutput.",
        ("wav", "flac", "ogg"): "They are recordings: --extract audio=egemaps (or mfcc) "
        "computes features of them, or name files of features of a speech model.",
        ("mp3", "m4a", "aac"): "They are recordings: convert them to .wav for --extract "
        "audio=egemaps, or extract features first, for example with a speech model.",
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
