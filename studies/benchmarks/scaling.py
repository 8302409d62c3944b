"""How time and memory of a unit grow, and whether a model of four terms follows.

Fits units of synthetic tables of several sizes, one process and one thread each, and measures
their processor time (other programs do not disturb it) and the highest memory. The model is
fitted to these sizes and compared with sizes held out of the fit. Three minutes on two cores:

    python studies/benchmarks/scaling.py

prints the measurements, the model's factors, and by what factor it is off where it was not
fitted.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from math import sqrt

import numpy as np
from scipy.optimize import least_squares

from toolkit.data import Manifest
from toolkit.models import Features
from toolkit.validation import Protocol, SearchOptions, run_unit, speaker_folds

#: Utterances, features, classes, inner folds, trials.
FITTED = [
    (300, 50, 4, 3, 3),
    (300, 50, 4, 3, 20),
    (600, 200, 2, 2, 6),
    (1_000, 100, 4, 3, 3),
    (1_000, 1_000, 4, 3, 3),
    (500, 500, 8, 3, 10),
    (1_200, 200, 6, 5, 3),
    (3_000, 500, 4, 3, 3),
    (5_000, 100, 4, 3, 3),
    (1_000, 5_000, 4, 3, 3),
    (20_000, 100, 4, 3, 2),
]
HELD_OUT = [
    (1_336, 768, 4, 3, 20),
    (2_000, 300, 4, 3, 4),
    (1_336, 3_000, 4, 3, 3),
    (10_000, 300, 3, 3, 3),
    (1_000, 20_000, 4, 3, 1),
    (100_000, 100, 4, 3, 1),
]
N_SPEAKERS = 10
#: Once per unit; a value of the table; a tree and root of the columns; and that times the rows.
#: The built-in search space lets a tree see columns in proportion to the root of all there are,
#: and a training set is made once for all trials that ask for the same.
TERMS = ("unit", "value", "tree", "row")


def unit_terms(n_rows, n_features, n_classes, inner, n_trials):
    """Count the terms of a unit's time."""
    # Inner folds that a trial fits before it is pruned: .70 of up to 20 trials, .58 of 50.
    raced = min(0.7, 1 / 3 + 1.64 / sqrt(n_trials))
    fits = inner * (1 + raced * (n_trials - 1)) + inner + 1
    # A round grows one tree per class, and a single one where there are two.
    seen = fits * (n_classes if n_classes > 2 else 1) * n_features**0.5
    return (1.0, float(n_rows * n_features), seen, n_rows * seen)


def make_manifest(n, n_classes, rng):
    return Manifest(
        source="synthetic",
        root=None,
        modalities=("x",),
        classes=tuple("abcdefgh"[:n_classes]),
        codes=tuple("abcdefgh"[:n_classes]),
        utterances=np.array([f"u{row:06d}" for row in range(n)]),
        labels=rng.integers(n_classes, size=n),
        speakers=np.array([f"s{row % N_SPEAKERS}" for row in range(n)]),
        sessions=None,
        dialogues=None,
        splits=None,
        paths={},
    )


def run_one(size):
    n, p, n_classes, inner, n_trials = size
    rng = np.random.default_rng(0)
    manifest = make_manifest(n, n_classes, rng)
    values = rng.normal(size=(n, p)).astype(np.float32)
    values[:, : max(p // 20, 1)] += 0.7 * manifest.labels[:, None]
    everything = np.arange(p)
    features = Features(
        values,
        tuple(f"x__mean__{k:05d}" for k in range(p)),
        np.ones(n, bool),
        {"rich": everything},
    )
    before = time.process_time()
    run_unit(
        manifest,
        features,
        speaker_folds(manifest)[0],
        system="x",
        protocol=Protocol(inner=inner),
        options=SearchOptions(n_trials=n_trials),
    )
    seconds = time.process_time() - before
    return {
        "seconds": seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(size):
    command = [sys.executable, __file__, "--one", json.dumps(size)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def fit_factors(found):
    """Fit the model's factors, none negative, to ratios: a small unit counts as a large one."""
    terms = np.array([unit_terms(*size) for size in FITTED])
    seconds = np.array([found[size]["seconds"] for size in FITTED])
    # Every term begins as an equal part of what was measured.
    start = np.median(seconds[:, None] / terms, axis=0) / len(TERMS)

    def misfit(logs):
        return np.log(terms @ (start * np.exp(logs)) / seconds)

    return start * np.exp(least_squares(misfit, np.zeros(len(TERMS)), bounds=(-12, 4)).x)


def predict(factors, size):
    return float(np.dot(unit_terms(*size), factors))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.one:
        print(json.dumps(run_one(said.one)))
        return
    found = {size: measure(size) for size in [*FITTED, *HELD_OUT]}
    factors = fit_factors(found)
    print("| utterances | features | classes | inner | trials | seconds | model | MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for size, one in found.items():
        cells = [*map(str, size), f"{one['seconds']:.1f}", f"{predict(factors, size):.1f}"]
        print(f"| {' | '.join(cells)} | {one['megabytes']:.0f} |")
    print(dict(zip(TERMS, factors.tolist(), strict=True)))
    for size in HELD_OUT:
        factor = predict(factors, size) / found[size]["seconds"]
        print(f"held out {size}: the model says {factor:.2f} times what was measured")


if __name__ == "__main__":
    main()
