"""Features of recordings by openSMILE, kept by the content of the samples."""

import io
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.data.audio import SOUND_EXTRACTORS, Sound, split_clip
from toolkit.data.containers import read_member
from toolkit.data.headers import SequenceError
from toolkit.files import cache_folder, checksum, write_bytes

#: Seconds of the longest window of these feature sets, below which there is no frame.
_SHORTEST: Final = 0.06
_writing = threading.Lock()


def extract_features(path: Path | str) -> NDArray[np.float32]:
    """Compute the features of one recording or segment, or take them from the cache.

    Returns
    -------
    ndarray of float32, shape (n_frames, n_dims) or (n_dims,)
        Functionals have no time axis.
    """
    sound, file = Sound.read(path), split_clip(path).file
    if sound.seconds < _SHORTEST:
        raise SequenceError(
            f"{file}: {sound.seconds:.3f} s of sound give no frame; at least {_SHORTEST:g} s "
            "are needed. Leave its cell in the table empty if nothing was recorded."
        )
    extractor = split_clip(path).extractor
    smile, columns, version = _load_extractor(extractor)
    key = checksum(sound.samples, f"{sound.rate} {extractor} {version}".encode())
    kept = cache_folder() / "extracted" / f"{key}.npz"
    try:
        features = read_member(f"{kept}#features", numbers=True)[1]
    except SequenceError:  # not kept yet, or damaged
        features = smile(sound.samples, sound.rate)[0, columns].T
        features = features[0] if extractor.endswith("functionals") else features
        content = io.BytesIO()
        np.savez(content, features=np.ascontiguousarray(features, np.float32))
        with _writing:  # threads may have the same samples
            write_bytes(kept, content.getvalue())
    assert features is not None
    return features


def name_features(extractor: str) -> tuple[str, ...]:
    """Name the dimensions of an extractor, in their order."""
    smile, columns, _ = _load_extractor(extractor)
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
