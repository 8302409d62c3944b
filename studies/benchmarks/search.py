"""How good a model each way of searching finds in its time, for the same people held out.

Every way gets the same outer folds, the same inner folds (grouped by speaker; FLAML makes
grouped ones of its own), one thread, and a budget of seconds an outer fold after which it
starts no further trial; the references fit once. The inner score chose, so only the outer one
counts, and one or two folds of it are noise: compare it over all folds (`--folds 10`).

Two ratios stand apart. *Same space*: the CPU seconds of some trials, with and without racing,
against those of cross_val_score on the very same parameters, which is what bins made once,
early stopping and racing are worth. *Shipped defaults*: trials a CPU second against a plain
loop of Optuna over a wide space as found in tutorials, which is what somebody gains who changes
nothing else.

    python studies/benchmarks/search.py [--shape text-768] [--folds 1] [--budget 15] [--seeds 1]
    python studies/benchmarks/search.py --data DATASET.csv --modality text --folds 10

A trial that runs is not cut short, so the wide spaces may take several times the budget for
their one trial: look at the seconds beside the score.

Peers that are not installed are left out and named: `pip install flaml optuna-integration`.
"""

import argparse
import csv
import importlib.util
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import optuna
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ParameterGrid, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from toolkit.data import Manifest, make_corpus, read_manifest
from toolkit.models import Features, lightgbm_space
from toolkit.pooling import pool_manifest
from toolkit.validation import (
    Fold,
    Ledger,
    SearchOptions,
    SearchResult,
    inner_folds,
    make_features,
    search_params,
    speaker_folds,
)
from toolkit.validation.fits import InnerFits
from toolkit.validation.intervals import jackknife_interval

SHAPES = {"text-768": ("text", 768), "visual-10k": ("visual", 569)}  # 18 statistics of 569
MANY = 100_000
CHOICES = ("booster", "statistics", "screening", "imbalance")
GRID = {"n_estimators": (100, 200), "num_leaves": (15, 31), "learning_rate": (0.05, 0.1)}


@dataclass(frozen=True)
class Task:
    """One outer fold, as the toolkit has it and as arrays."""

    manifest: Manifest
    features: Features
    fold: Fold
    inner: tuple[Fold, ...]
    seed: int
    budget: float
    seen: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray
    splits: list[tuple[np.ndarray, np.ndarray]]  # the inner folds, as positions in `seen`


def make_task(
    manifest: Manifest, features: Features, fold: Fold, *, seed: int, budget: float
) -> Task:
    inner = inner_folds(manifest, fold, unit="speaker", n_folds=3, seed=0, purpose="search")
    place = np.full(len(manifest), -1)
    place[fold.train] = np.arange(len(fold.train))
    return Task(
        manifest=manifest,
        features=features,
        fold=fold,
        inner=tuple(inner),
        seed=seed,
        budget=budget,
        seen=np.ascontiguousarray(features.values[fold.train]),
        labels=manifest.labels[fold.train],
        held_out=np.ascontiguousarray(features.values[fold.test]),
        splits=[(place[each.train], place[each.test]) for each in inner],
    )


@dataclass(frozen=True)
class Found:
    """What a way found: its decisions on the held-out rows."""

    predicted: np.ndarray
    inner: float | None
    trials: int


def make_fits(task: Task) -> InnerFits:
    ledger = Ledger("s", task.fold, task.manifest.utterances, task.manifest.speakers)
    return InnerFits(
        task.features,
        task.manifest.labels,
        task.fold.train,
        n_classes=len(task.manifest.classes),
        ledger=ledger,
        seed=task.seed,
    )


def search_trials(task: Task, **options: Any) -> SearchResult:
    settings = replace(SearchOptions(n_trials=MANY, timeout=task.budget), **options)
    return search_params(make_fits(task), task.inner, settings)


def toolkit_search(task: Task, **options: Any) -> Found:
    found, fits = search_trials(task, **options), make_fits(task)
    booster, prepared = fits.fit(
        found.params, task.fold.train, fit="refit", n_rounds=found.n_rounds
    )
    proba = fits.predict(booster, prepared, task.fold.test)
    return Found(proba.argmax(axis=1), found.score, len(found.trials))


def compare_same_trials(task: Task, n_trials: int) -> dict[str, float]:
    """Measure CPU seconds a trial: ours without and with racing, and scikit-learn's."""
    plain = {"screening": ("none",), "imbalance": ("none",), "n_trials": n_trials}
    plain |= {"timeout": None}
    spent, kept = {}, None
    for name, racing in (("without racing", False), ("with racing", True)):
        start = time.process_time()
        result = search_trials(task, racing=racing, **plain)
        spent[name] = time.process_time() - start
        kept = kept or result.trials
    start = time.process_time()
    for trial in kept:
        own = {k: v for k, v in trial["params"].items() if k not in CHOICES}
        own.pop("bagging_freq")
        model = make_booster(task, n_estimators=SearchOptions().max_rounds, **own)
        cross_val_score(model, task.seen, task.labels, cv=task.splits)
    spent["cross_val_score"] = time.process_time() - start
    return {name: seconds / n_trials for name, seconds in spent.items()}


def make_booster(task: Task, **params: Any) -> lgb.LGBMClassifier:
    return lgb.LGBMClassifier(
        n_jobs=1, random_state=task.seed, verbosity=-1, bagging_freq=1, **params
    )


def grid_search(task: Task) -> Found:
    """scikit-learn's grid search, a point at a time, so that the budget can end it."""
    best, best_score, started, trials = None, -1.0, time.perf_counter(), 0
    order = np.random.default_rng(task.seed).permutation(len(ParameterGrid(GRID)))
    for k in order:
        point = {name: [value] for name, value in ParameterGrid(GRID)[int(k)].items()}
        search = GridSearchCV(
            make_booster(task), point, cv=task.splits, scoring="accuracy", refit=False
        )
        search.fit(task.seen, task.labels)
        trials += 1
        if search.best_score_ > best_score:
            best, best_score = search.best_params_, search.best_score_
        if time.perf_counter() - started >= task.budget:
            break
    model = make_booster(task, **best).fit(task.seen, task.labels)
    return Found(model.predict(task.held_out), best_score, trials)


def wide_space(trial: optuna.Trial, _: Task) -> dict[str, Any]:
    return {
        "n_estimators": trial.suggest_int("n_estimators", 50, 500),
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 15, 127),
        "min_child_samples": trial.suggest_int("min_child_samples", 5, 50),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.4, 1.0),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 1e-3, 10.0, log=True),
    }


def same_space(trial: optuna.Trial, task: Task) -> dict[str, Any]:
    n_rows, n_features = task.seen.shape
    own = lightgbm_space(trial, n_rows=n_rows, n_features=n_features)
    own.pop("bagging_freq")
    return own | {"n_estimators": trial.suggest_int("n_estimators", 50, 300)}


def naive_optuna(task: Task, space: Callable[[optuna.Trial, Task], dict[str, Any]]) -> Found:
    def objective(trial: optuna.Trial) -> float:
        model = make_booster(task, **space(trial, task))
        return cross_val_score(model, task.seen, task.labels, cv=task.splits).mean()

    sampler = optuna.samplers.TPESampler(seed=task.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, timeout=task.budget)
    params = space(optuna.trial.FixedTrial(study.best_params), task)
    model = make_booster(task, **params).fit(task.seen, task.labels)
    return Found(model.predict(task.held_out), study.best_value, len(study.trials))


def optuna_search_cv(task: Task) -> Found:
    from optuna.distributions import FloatDistribution, IntDistribution  # noqa: PLC0415
    from optuna_integration import OptunaSearchCV  # noqa: PLC0415

    search = OptunaSearchCV(
        make_booster(task),
        {
            "n_estimators": IntDistribution(50, 500),
            "learning_rate": FloatDistribution(0.01, 0.3, log=True),
            "num_leaves": IntDistribution(15, 127),
            "min_child_samples": IntDistribution(5, 50),
            "colsample_bytree": FloatDistribution(0.4, 1.0),
            "subsample": FloatDistribution(0.5, 1.0),
            "reg_lambda": FloatDistribution(1e-3, 10.0, log=True),
        },
        cv=task.splits,
        n_trials=None,
        timeout=task.budget,
        random_state=task.seed,
        scoring="accuracy",
    )
    search.fit(task.seen, task.labels)
    return Found(search.predict(task.held_out), search.best_score_, len(search.trials_))


def lightgbm_tuner(task: Task) -> Found:
    from optuna_integration.lightgbm import LightGBMTunerCV  # noqa: PLC0415

    n_classes = len(task.manifest.classes)
    params = {
        "objective": "multiclass",
        "num_class": n_classes,
        "metric": "multi_logloss",
        "verbosity": -1,
        "num_threads": 1,
        "seed": task.seed,
    }
    tuner = LightGBMTunerCV(
        params,
        lgb.Dataset(task.seen, task.labels),
        num_boost_round=300,
        folds=task.splits,
        time_budget=task.budget,
        callbacks=[lgb.early_stopping(20, verbose=False)],
        optuna_seed=task.seed,
        show_progress_bar=False,
        return_cvbooster=True,
    )
    tuner.run()
    rounds = tuner.get_best_booster().best_iteration
    model = lgb.train(tuner.best_params, lgb.Dataset(task.seen, task.labels), max(rounds, 1))
    return Found(model.predict(task.held_out).argmax(axis=1), None, len(tuner.study.trials))


def flaml(task: Task) -> Found:
    from flaml import AutoML  # noqa: PLC0415

    automl = AutoML()
    automl.fit(
        task.seen,
        task.labels,
        task="classification",
        metric="accuracy",
        estimator_list=["lgbm"],
        eval_method="cv",
        n_splits=3,
        split_type="group",
        groups=np.unique(task.manifest.speakers[task.fold.train], return_inverse=True)[1],
        time_budget=task.budget,
        seed=task.seed,
        n_jobs=1,
        verbose=0,
    )
    # Its history names improvements only; the counter of all is not public.
    trials = automl._track_iter + 1  # noqa: SLF001
    return Found(automl.predict(task.held_out), 1 - automl.best_loss, trials)


def reference(task: Task, model: Any) -> Found:
    return Found(model.fit(task.seen, task.labels).predict(task.held_out), None, 1)


def logistic(task: Task) -> Found:
    return reference(task, make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)))


def hist_boosting(task: Task) -> Found:
    return reference(task, HistGradientBoostingClassifier(random_state=task.seed))


def ways() -> Iterator[tuple[str, Callable[[Task], Found]]]:
    plain = {"screening": ("none",), "imbalance": ("none",)}
    yield "toolkit, shipped defaults", toolkit_search
    yield (
        "toolkit, space of the booster alone",
        lambda task: toolkit_search(task, **plain),
    )
    yield "toolkit, grid", lambda task: toolkit_search(task, sampler="grid", **plain)
    yield "Optuna + cross_val_score, toolkit's space", lambda t: naive_optuna(t, same_space)
    yield "Optuna + cross_val_score, wide space", lambda t: naive_optuna(t, wide_space)
    yield "scikit-learn GridSearchCV", grid_search
    if importlib.util.find_spec("optuna_integration"):
        yield "OptunaSearchCV, wide space", optuna_search_cv
        yield "LightGBMTunerCV", lightgbm_tuner
    if importlib.util.find_spec("flaml"):
        yield "FLAML, LightGBM", flaml
    yield "HistGradientBoosting, defaults", hist_boosting
    yield "logistic regression", logistic


def read_data(options: argparse.Namespace, folder: Path) -> tuple[Manifest, Features]:
    modality = options.modality
    if options.data is None:
        modality, n_dims = SHAPES[options.shape]
        dims = {"visual": 8, "audio": 8, "text": 8} | {modality: n_dims}
        source = make_corpus(folder / "corpus", n_utterances=options.utterances, dims=dims)
    else:
        source = options.data
    manifest = read_manifest(source, modalities=(modality,))
    table = pool_manifest(manifest, modality, statistics="rich", cache=folder / "cache")
    values = np.nan_to_num(np.asarray(table.values))  # scikit-learn's linear model wants it
    features = make_features([table], ("rich",))
    present = np.ones(len(manifest), dtype=bool)
    return manifest, replace(features, values=values, present=present)


def run(
    way: Callable[[Task], Found], tasks: Sequence[Task]
) -> tuple[list[Found], float, float]:
    found, wall, cpu = [], time.perf_counter(), time.process_time()
    for task in tasks:
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            found.append(way(task))
    return found, time.perf_counter() - wall, time.process_time() - cpu


def score(
    tasks: Sequence[Task], found: Sequence[Found]
) -> tuple[float, float | None, float | None]:
    """F1-micro over all held-out rows, and its jackknife interval over speakers."""
    people = [task.manifest.speakers[task.fold.test[0]] for task in tasks]
    pairs = zip(tasks, found, strict=True)
    right = [f.predicted == t.manifest.labels[t.fold.test] for t, f in pairs]
    total = np.concatenate(right).mean()
    without = [
        np.concatenate([r for r, p in zip(right, people, strict=True) if p != person]).mean()
        for person in dict.fromkeys(people)
        if len(set(people)) > 1
    ]
    low, high = jackknife_interval(float(total), without) if without else (None, None)
    return float(total), low, high


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="text-768", help="generated data")
    parser.add_argument("--utterances", type=int, default=600, help="of generated data")
    parser.add_argument("--data", type=Path, help="your own dataset.csv instead")
    parser.add_argument("--modality", default="text", help="of your own data")
    parser.add_argument("--folds", type=int, default=1, help="outer folds, one a speaker")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", type=float, default=10, help="seconds an outer fold")
    parser.add_argument("--same", type=int, default=12, help="trials of the same space")
    parser.add_argument("--only", default="", help="ways whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("search.csv"))
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    absent = [n for n in ("flaml", "optuna_integration") if not importlib.util.find_spec(n)]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rates: dict[str, float] = {}
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        manifest, features = read_data(options, Path(folder))
        tasks = [
            make_task(manifest, features, fold, seed=seed, budget=options.budget)
            for seed in range(options.seeds)
            for fold in speaker_folds(manifest)[: options.folds]
        ]
        n_rows, n_columns = features.values.shape
        with threadpool_limits(1):
            same = compare_same_trials(tasks[0], options.same)
        print(f"The same {options.same} trials, CPU seconds a trial:")
        for name, seconds in same.items():
            print(f"  {name:18} {seconds:.3f}   x {same['cross_val_score'] / seconds:.1f}")
            way = f"same {options.same} trials, {name}"
            rows.append([n_rows, n_columns, 1, way, options.same, "", seconds * options.same])
        print(f"{n_rows} utterances, {n_columns} columns, {len(tasks)} searches a way")
        print(f"{'':42} trials  wall s   CPU s  trials/CPU s  inner  outer F1")
        for name, way in ways():
            if options.only not in name:
                continue
            found, wall, cpu = run(way, tasks)
            trials = sum(f.trials for f in found)
            inner = [f.inner for f in found if f.inner is not None]
            mean = float(np.mean(inner)) if inner else None
            value, low, high = score(tasks, found)
            rates[name] = trials / cpu
            between = "" if low is None else f" [{low:.3f}, {high:.3f}]"
            print(
                f"{name:42} {trials:6} {wall:7.1f} {cpu:7.1f} {rates[name]:13.3f}"
                f"  {'     ' if mean is None else f'{mean:.3f}'}  {value:.3f}{between}",
                flush=True,
            )
            rows.append([n_rows, n_columns, len(tasks), name, trials, wall, cpu, mean])
            rows[-1] += [value, low, high]
    ours, wide = "toolkit, shipped defaults", "Optuna + cross_val_score, wide space"
    if ours in rates and wide in rates:
        ratio = rates[ours] / rates[wide]
        print(f"Shipped defaults against the wide space: x {ratio:.1f} trials a CPU second")
    if absent:
        print(f"Not installed, so not compared: {', '.join(absent)}.")
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        head = ["rows", "columns", "searches", "way", "trials", "wall_s", "cpu_s"]
        writer.writerow([*head, "inner", "outer_f1_micro", "low", "high"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
