"""Does a trial cost the same, however many came before it?

Searches of 100, 300 and 1,000 trials over the shipped space, kept in SQLite as a study keeps
them. Nothing is fitted: a trial's probabilities are drawn, so that what is left is the
bookkeeping of the search (Optuna's sampler and storage, racing, ledger). Processor time of one
process, the lower of two runs; a claim that does not hold ends in exit code 1. Two minutes:

    python studies/benchmarks/trials.py
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from toolkit.data import Manifest
from toolkit.models import Features
from toolkit.validation import SearchOptions, create_studies, speaker_folds
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import inner_folds
from toolkit.validation.ledger import Ledger
from toolkit.validation.racing import IntermediateValue
from toolkit.validation.search import search_params
from toolkit.validation.trials import sqlite_url

SIZES = (100, 300, 1_000)
MOST = 1.5
N_ROWS, N_CLASSES, N_SPEAKERS = 300, 4, 10


class Unfitted(InnerFits):
    """Inner fits whose probabilities are drawn from the parameters: nothing is fitted."""

    def evaluate(self, params, folds, *, metric, max_rounds, patience):
        digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).digest()
        rng = np.random.default_rng(list(digest))
        skill = rng.random()
        truths, probas = [], []
        for inner in folds:
            self.record_trial(params, [inner])
            labels = self.labels[inner.test]
            truths.append(labels)
            probas.append(rng.dirichlet(np.ones(N_CLASSES), len(labels)))
            probas[-1][np.arange(len(labels)), labels] += skill
            yield (
                IntermediateValue.compute(
                    metric, np.concatenate(truths), np.concatenate(probas) / (1 + skill)
                ),
                1 + int(skill * max_rounds),
            )


def make_search():
    """Give inner fits and inner folds of a small synthetic table."""
    rng = np.random.default_rng(0)
    manifest = Manifest(
        source="synthetic",
        root=None,
        modalities=("x",),
        classes=tuple("abcd"),
        codes=tuple("abcd"),
        utterances=np.array([f"u{row:06d}" for row in range(N_ROWS)]),
        labels=rng.integers(N_CLASSES, size=N_ROWS),
        speakers=np.array([f"s{row % N_SPEAKERS}" for row in range(N_ROWS)]),
        sessions=None,
        dialogues=None,
        splits=None,
        paths={},
    )
    features = Features(
        np.zeros((N_ROWS, 600), dtype=np.float32),
        tuple(f"x__mean__{k:05d}" for k in range(600)),
        np.ones(N_ROWS, bool),
        {"rich": np.arange(600)},
    )
    fold = speaker_folds(manifest)[0]
    ledger = Ledger("x", fold, manifest.utterances, manifest.speakers)
    fits = Unfitted(
        features, manifest.labels, fold.train, n_classes=N_CLASSES, ledger=ledger, seed=0
    )
    folds = inner_folds(manifest, fold, grouping="speaker", n_folds=3, seed=0, purpose="search")
    return fits, folds


def measure(n_trials, options):
    """Give the processor seconds of a search, and the hash of what it proposed."""
    fits, folds = make_search()
    with tempfile.TemporaryDirectory() as folder:
        storage = sqlite_url(Path(folder, "search.db"))
        create_studies(storage, {"x": ["x"]}, metric="f1_micro")
        before = time.process_time()
        found = search_params(fits, folds, options(n_trials), storage=storage, study_name="x")
        seconds = time.process_time() - before
    proposed = json.dumps([trial["params"] for trial in found.trials], sort_keys=True)
    return seconds, hashlib.sha256(proposed.encode()).hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    parser.add_argument("--boosters", default="lightgbm")
    chosen = parser.parse_args()

    def options(n_trials):
        boosters = tuple(chosen.boosters.split(","))
        return SearchOptions(boosters=boosters, n_trials=n_trials, sampler=chosen.sampler)

    measure(10, options)  # imports and first calls
    print("| trials | processor seconds | ms per trial | times that of the first | proposals |")
    print("|---:|---:|---:|---:|---|")
    ratios = []
    for n_trials in SIZES:
        # Other programs can only add.
        (seconds, proposed), (again, same) = (measure(n_trials, options) for _ in range(2))
        assert proposed == same
        seconds = min(seconds, again)
        each = 1000 * seconds / n_trials
        ratios.append(each / ratios[0] if ratios else each)
        ratio = ratios[-1] if len(ratios) > 1 else 1.0
        print(f"| {n_trials:,} | {seconds:.2f} | {each:.2f} | {ratio:.2f} | {proposed} |")
    return int(max(ratios[1:]) > MOST)


if __name__ == "__main__":
    sys.exit(main())
