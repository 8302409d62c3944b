"""Would a small boosted stacker earn its place beside the logistic one?

    python studies/benchmarks/stacker.py outputs/watch-0 outputs/mosi-0 ...

Takes finished studies and fits, in every outer fold, both second models on the very same
columns: the modalities' log-probabilities of the training people, out of fold. The boosted one
is as small as makes sense for a dozen columns (4 leaves, steps of .05, 20 rows a leaf), and its
rounds, at most 200, are those of least log-loss for groups left out, as the logistic one's
penalty is. F1-micro and log-loss are of the held-out people; the interval of the difference is
the jackknife over speakers.
"""

import argparse
from pathlib import Path

import lightgbm as lgb
import numpy as np

from toolkit.fusion.fuse import _make_base_predictions
from toolkit.fusion.inputs import StackedPredictions
from toolkit.fusion.late import (
    _PENALTIES,
    _fit_stackers,
    _row_priors,
    _split_groups,
    _stack_features,
)
from toolkit.models import class_priors
from toolkit.models.boosters import row_log_loss
from toolkit.study.folder import StudyFolder
from toolkit.study.results import _read_units
from toolkit.systems import System
from toolkit.validation import gather_predictions
from toolkit.validation.scores import jackknife_interval

PARAMS = {
    "objective": "multiclass",
    "num_leaves": 4,
    "learning_rate": 0.05,
    "min_data_in_leaf": 20,
    "num_threads": 1,
    "deterministic": True,
    "verbosity": -1,
}
MOST_ROUNDS = 200


def boost(X, y, n_classes, n_rounds):
    return lgb.train(PARAMS | {"num_class": n_classes}, lgb.Dataset(X, y), n_rounds)


def fit_boosted(stacked, inner):
    """Fit the boosted stacker, its rounds chosen on groups left out."""
    X, n_classes = _stack_features(stacked), stacked.priors.shape[1]
    losses = np.zeros((MOST_ROUNDS, len(X)))
    for train, test in _split_groups(inner):
        model = boost(X[train], inner.labels[train], n_classes, MOST_ROUNDS)
        for n_rounds in range(1, MOST_ROUNDS + 1):
            proba = model.predict(X[test], num_iteration=n_rounds)
            losses[n_rounds - 1, test] = row_log_loss(inner.labels[test], proba)
    best = int(losses.mean(axis=1).argmin()) + 1
    return boost(X, inner.labels, n_classes, best), best


def fit_logistic(stacked, inner):
    """Fit the shipped stacker, its penalty chosen on groups left out."""
    losses = np.zeros((len(_PENALTIES), len(inner.labels)))
    for train, test in _split_groups(inner):
        fitted = _fit_stackers(stacked.take(train), inner.labels[train], _PENALTIES)
        for at, stacker in enumerate(fitted):
            proba = stacker(stacked.take(test)).proba
            losses[at, test] = row_log_loss(inner.labels[test], proba)
    best = _PENALTIES[int(losses.mean(axis=1).argmin())]
    return _fit_stackers(stacked, inner.labels, [best])[0]


def compare(folder: Path) -> list[str]:
    study = StudyFolder(folder).read_study()
    manifest, folds = study.manifest, study.folds
    units, _ = _read_units(study)
    predictions = {
        name: gather_predictions(
            manifest, folds, name, [u.proba for u in found], [u.present for u in found]
        )
        for name, found in units.items()
        if not System.parse(name).is_logistic
    }
    singles = [
        _make_base_predictions(
            predictions[name], units[name], labels=manifest.labels, groups=study.groups
        )
        for name in manifest.available
        if name in units
    ]
    table = singles[0].predictions
    n_classes = len(table.classes)
    priors = {
        fold: class_priors(inner.labels, n_classes) for fold, inner in singles[0].inner.items()
    }
    outer = StackedPredictions.of(
        [one.predictions for one in singles], _row_priors(table.folds, priors)
    )
    proba = {
        "logistic": np.empty(table.proba.shape),
        "boosted": np.empty(table.proba.shape),
    }
    rounds = []
    for fold, inner in singles[0].inner.items():
        stacked = StackedPredictions.of([one.inner[fold] for one in singles], priors[fold])
        test = np.flatnonzero(table.folds == fold)
        tested = outer.take(test)
        proba["logistic"][test] = fit_logistic(stacked, inner)(tested).proba
        model, n_rounds = fit_boosted(stacked, inner)
        proba["boosted"][test] = model.predict(_stack_features(tested))
        rounds.append(n_rounds)
    right = {name: p.argmax(axis=1) == table.labels for name, p in proba.items()}
    gain = right["boosted"].astype(float) - right["logistic"]
    people, sizes = np.unique(table.speakers, return_counts=True)
    left_out = [gain[table.speakers != who].mean() for who in people]
    low, high = jackknife_interval(float(gain.mean()), left_out, sizes)
    cells = [folder.name]
    for name, p in proba.items():
        loss = row_log_loss(table.labels, p).mean()
        cells += [f"{right[name].mean():.3f}", f"{loss:.3f}"]
    return [
        *cells,
        f"{gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]",
        f"{min(rounds)}-{max(rounds)}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    print("| study | logistic F1 | log-loss | boosted F1 | log-loss | difference | rounds |")
    print("|---|---|---|---|---|---|---|")
    for folder in parser.parse_args().folders:
        print(f"| {' | '.join(compare(folder))} |", flush=True)


if __name__ == "__main__":
    main()
