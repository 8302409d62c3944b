"""Is the first trial a strong default, and what does each part of it do?

    python studies/benchmarks/space.py --data DATASET.csv --modality voice [--outer split]
        [--seeds 3] [--only components] [--trials 20]

One change at a time, and nothing is searched unless told: every variant is fitted in all outer
folds, its rounds taken from the inner folds as in a study, and compared with the shipped first
trial on the same held-out rows, over several seeds on average. The interval of the difference
is the jackknife over speakers. The variants were chosen before any was run; CPU is relative to
the shipped first trial's.

The projections replace the columns by their principal components, or stand beside them; they
are fitted on the training people of the outer fold, and see no label.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from toolkit.data import Manifest, make_corpus, read_manifest
from toolkit.models import Features
from toolkit.models.spaces import _default_params, to_params
from toolkit.pooling import pool_manifest
from toolkit.validation import Fold, SearchOptions, make_features, make_folds, outer_grouping
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import inner_folds
from toolkit.validation.ledger import Ledger
from toolkit.validation.scores import jackknife_interval
from toolkit.validation.search import search_params

#: The shipped first trial's discrete half.
RECIPE = {
    "booster": "lightgbm",
    "statistics": "rich",
    "screening": "none",
    "imbalance": "none",
}
N_COMPONENTS = 64


def variants() -> Iterator[tuple[str, dict[str, object], dict[str, object], str]]:
    """Name each variant; give its suggestions, its own parameters and its projection."""
    yield "shipped first trial", {}, {}, ""
    yield "every column for every tree", {}, {"feature_fraction": 1.0}, ""
    yield "a fifth of the columns", {}, {"feature_fraction": 0.2}, ""
    yield "a quarter of its columns", {"columns_over_root": 0.25}, {}, ""
    yield "255 bins", {"max_bin": 255}, {}, ""
    yield "31 leaves", {"num_leaves": 31}, {}, ""
    yield "3 leaves", {"num_leaves": 3}, {}, ""
    yield "no extra_trees", {"extra_trees": False}, {}, ""
    yield "no bagging", {"bagging_fraction": 1.0}, {}, ""
    yield "a quarter of the learning rate", {"learning_rate": 0.01}, {}, ""
    yield "class weights", {}, {"imbalance": "weights"}, ""
    yield "SMOTE", {}, {"imbalance": "smote"}, ""
    yield "F-test screen to 500", {}, {"screening": "ftest-500"}, ""
    yield "mutual information to 500", {}, {"screening": "mutual-500"}, ""
    yield "boosted gain to 500", {}, {"screening": "gain-500"}, ""
    yield f"{N_COMPONENTS} principal components instead", {}, {}, "instead"
    yield f"{N_COMPONENTS} principal components beside", {}, {}, "beside"


def project(features: Features, fold: Fold, how: str, seed: int) -> Features:
    """Put principal components of the training people in the place of columns, or beside."""
    if not how:
        return features
    values = np.nan_to_num(np.asarray(features.values))
    n_components = min(N_COMPONENTS, *values[fold.train].shape)
    model = make_pipeline(
        StandardScaler(), PCA(n_components, svd_solver="randomized", random_state=seed)
    )
    parts = model.fit(values[fold.train]).transform(values).astype(np.float32)
    names = tuple(f"pca__value__{i:04d}" for i in range(n_components))
    if how == "beside":
        parts = np.hstack([np.asarray(features.values), parts])
        names = (*features.names, *names)
    presets = {"rich": np.arange(len(names))}
    return replace(features, values=np.ascontiguousarray(parts), names=names, presets=presets)


def fit_fold(
    manifest: Manifest,
    features: Features,
    fold: Fold,
    unit: str,
    *,
    said: dict[str, object],
    own: dict[str, object],
    how: str,
    n_trials: int,
    seed: int,
) -> np.ndarray:
    """Predict one fold's held-out rows with fixed parameters, or with those of a search."""
    mine = project(features, fold, how, seed)
    inner = inner_folds(manifest, fold, grouping=unit, n_folds=3, seed=seed, purpose="search")
    n_columns = mine.values.shape[1]
    values = _default_params("lightgbm") | said
    params = to_params("lightgbm", values, n_rows=len(fold.train), n_features=n_columns)
    params = RECIPE | params | own
    ledger = Ledger("s", fold, manifest.utterances, manifest.speakers)
    fits = InnerFits(
        mine,
        manifest.labels,
        fold.train,
        n_classes=len(manifest.classes),
        ledger=ledger,
        seed=seed,
    )
    options = SearchOptions(n_trials=n_trials)
    if n_trials > 1:
        found = search_params(fits, inner, options)
        params, n_rounds = found.params, found.n_rounds
    else:
        scored = fits.evaluate(
            params,
            inner,
            metric="f1_micro",
            max_rounds=options.max_rounds,
            patience=options.patience,
        )
        *_, (_, n_rounds) = scored
    booster, prepared = fits.fit(params, fold.train, fit="refit", n_rounds=n_rounds)
    return fits.predict(booster, prepared, fold.test).argmax(axis=1)


def measure(
    manifest: Manifest, folds: list[Fold], fit: Callable[..., np.ndarray], n_seeds: int
) -> tuple[np.ndarray, float]:
    """Tell how often each held-out row was right, and the processor's seconds."""
    right = np.zeros(len(manifest))
    start = time.process_time()
    for fold in folds:
        for seed in range(n_seeds):
            right[fold.test] += (fit(fold, seed=seed) == manifest.labels[fold.test]) / n_seeds
    return right, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="dataset.csv; a generated one by default")
    parser.add_argument("--modality", default="text")
    parser.add_argument("--outer", default="speaker")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument(
        "--trials", type=int, default=1, help="more: searched, projections only"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        folder = Path(name)
        dims = {"visual": 8, "audio": 8, "text": 768}
        data = options.data or make_corpus(folder / "corpus", n_utterances=600, dims=dims)
        manifest = read_manifest(data, modalities=(options.modality,))
        cache = folder / "cache"
        table = pool_manifest(manifest, options.modality, statistics="rich", cache=cache)
        features = make_features([table], ("rich",))
        folds = list(make_folds(manifest, options.outer, seed=0))
        tested = np.concatenate([fold.test for fold in folds])
        people, unit = manifest.speakers[tested], outer_grouping(options.outer)
        print(f"{options.modality}: {features.values.shape}, {len(folds)} outer folds")
        print(
            "| variant | F1-micro | difference [95 % over speakers] | CPU |\n|---|---|---|---|"
        )
        first: tuple[np.ndarray, float] | None = None
        fit_one = partial(fit_fold, manifest, features, unit=unit, n_trials=options.trials)
        fit_one(folds[0], said={}, own={}, how="", seed=0)  # to warm up
        for variant, said, own, how in variants():
            fixed = bool(said or own)
            if first is not None and (
                options.only not in variant or (fixed and options.trials > 1)
            ):
                continue
            fit = partial(fit_one, said=said, own=own, how=how)
            right, seconds = measure(manifest, folds, fit, options.seeds)
            first = first or (right, seconds)
            gain = (right - first[0])[tested]
            names, sizes = np.unique(people, return_counts=True)
            left_out = [gain[people != person].mean() for person in names]
            low, high = jackknife_interval(float(gain.mean()), left_out, sizes)
            between = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
            change = f"{gain.mean():+.3f}{between}" if variant != "shipped first trial" else ""
            score = right[tested].mean()
            print(
                f"| {variant} | {score:.3f} | {change} | {seconds / first[1]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
