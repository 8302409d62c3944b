from dataclasses import dataclass

import numpy as np
import pytest

from toolkit.fusion import LATE_METHODS
from toolkit.fusion.fuse import _BasePredictions, _fuse_all
from toolkit.fusion.inputs import InnerPredictions
from toolkit.models import class_priors
from toolkit.validation.folds import Fold
from toolkit.validation.ledger import Ledger
from toolkit.validation.predictions import Predictions


@dataclass(frozen=True)
class Study:
    """A generated leave-one-speaker-out study: three modalities and early fusion.

    Trees and linear parts are guesses of their own, so that none is taken for another.
    """

    voters: list
    early: _BasePredictions
    folds: list
    utterances: np.ndarray
    groups: np.ndarray
    labels: np.ndarray

    def ledgers(self, system="any"):
        return {
            fold.number: Ledger(system, fold, self.utterances, self.groups)
            for fold in self.folds
        }

    def priors(self):
        """The class priors of every fold's training rows."""
        n_classes = len(self.early.predictions.classes)
        return {
            fold.number: class_priors(self.labels[fold.train], n_classes) for fold in self.folds
        }


def make_study(*, n=240, n_classes=4, n_speakers=6, n_voters=3, missing=0.35, seed=0):
    rng = np.random.default_rng(seed)
    odds = np.arange(1, n_classes + 1)
    labels = rng.choice(n_classes, n, p=odds / odds.sum())
    utterances = np.array([f"u{row:04d}" for row in range(n)])
    groups = np.array([f"S{row * n_speakers // n}" for row in range(n)])
    names = np.unique(groups)
    folds = [
        Fold(k, np.flatnonzero(groups != name), np.flatnonzero(groups == name), (str(name),))
        for k, name in enumerate(names)
    ]

    apart = np.random.default_rng([seed, 1])

    def make(system, skill, missing):
        present = rng.random(n) >= missing

        def guess(shares, rng=rng):
            margins = rng.normal(size=(n, n_classes)) + skill * np.eye(n_classes)[labels]
            proba = np.exp(margins)
            proba /= proba.sum(axis=1, keepdims=True)
            proba[~present] = shares
            return proba

        def guess_parts(shares, rows):
            return {name: guess(shares, apart)[rows] for name in ("trees", "linear")}

        proba, inner, parts = np.empty((n, n_classes)), {}, {}
        for fold in folds:
            shares = np.bincount(labels[fold.train], minlength=n_classes) / len(fold.train)
            proba[fold.test] = guess(shares)[fold.test]
            rows = fold.train
            inner[fold.number] = InnerPredictions(
                rows,
                labels[rows],
                groups[rows],
                present[rows],
                guess(shares)[rows],
                guess_parts(shares, rows),
            )
            parts[fold.number] = guess_parts(shares, fold.test)
        predictions = Predictions(
            system,
            tuple("abcdefgh"[:n_classes]),
            utterances,
            groups,
            None,
            np.searchsorted(names, groups),
            present,
            labels,
            proba,
        )
        return _BasePredictions(predictions, inner, parts)

    modalities = ["visual", "text", "audio", *(f"extra{k}" for k in range(n_voters - 3))]
    voters = [make(system, 1 + 0.3 * k, missing) for k, system in enumerate(modalities)]
    early = make("early", 2.0, 0.0)
    return Study(voters[:n_voters], early, folds, utterances, groups, labels)


@pytest.fixture(scope="session")
def study():
    return make_study()


@pytest.fixture(scope="session")
def generate():
    return make_study


@pytest.fixture(scope="session")
def fuse():
    """Fuse a generated study, by default its modalities without early fusion."""

    def run(study, modalities=None, early=None, **options):
        return _fuse_all(
            study.voters if modalities is None else modalities,
            early,
            folds=study.folds,
            utterances=study.utterances,
            groups=study.groups,
            **{"methods": LATE_METHODS, "metric": "f1_micro"} | options,
        )

    return run


@pytest.fixture(scope="session")
def say():
    """Predictions of one fold from probabilities alone."""

    def build(system, proba, *, labels=None, present=None, folds=None, speakers=None):
        proba = np.array(proba, dtype=float)
        n, n_classes = proba.shape
        ids = np.array([f"u{row:03d}" for row in range(n)])
        return Predictions(
            system,
            tuple("abcdefgh"[:n_classes]),
            ids,
            ids if speakers is None else np.array(speakers),
            None,
            np.zeros(n, dtype=int) if folds is None else np.array(folds),
            np.ones(n, dtype=bool) if present is None else np.array(present, dtype=bool),
            np.zeros(n, dtype=int) if labels is None else np.array(labels),
            proba,
        )

    return build
