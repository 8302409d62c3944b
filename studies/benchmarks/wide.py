"""What does a modality of more than 20,000 columns cost, and what is lost by each `--wide`?

    python studies/benchmarks/wide.py

The visual features of the corpus of `toolkit demo --full`, with 2,048 dimensions and 36,864
`rich` columns, of fewer utterances. Five sessions are held out in turn, with five trials and
one thread per fit. Each way runs in a process of its own, after the same table was pooled.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.data import make_corpus, read_manifest
from toolkit.data.corpora import _compose, _make_features
from toolkit.pooling import PRESETS, FeatureTable, pool_frames
from toolkit.validation import (
    MOST_COLUMNS,
    Predictions,
    Protocol,
    SearchOptions,
    compare_systems,
    find_score,
    gather_predictions,
    make_features,
    make_folds,
    run_logistic_unit,
    run_unit,
    score_predictions,
)

N_DIMS = 2_048
STATISTICS = PRESETS["rich"]
PROTOCOL = Protocol(outer="session")


def write_table(folder: Path, n: int) -> None:
    """Write a manifest and the pooled features of its utterances."""
    small = dict.fromkeys(("text", "audio", "visual"), 8)
    table = make_corpus(folder / "corpus", full=True, n_utterances=n, dims=small)
    wanted = {u.name: u for u in _compose(True, n, seed=0)}
    names = read_manifest(table, modalities=("text",)).utterances
    shape = (n, N_DIMS * len(STATISTICS))
    path = folder / "values.npy"
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for row, name in enumerate(names):
        frames = _make_features(0, "visual", N_DIMS, wanted[name])
        values[row] = pool_frames(frames, STATISTICS).ravel()
    values.flush()


if __name__ == "__main__":
    t = time.process_time()
    write_table(Path(sys.argv[1]), int(sys.argv[2]))
    print(time.process_time() - t)
