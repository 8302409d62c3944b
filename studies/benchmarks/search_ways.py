"""The ways of searching that ``search.py`` compares: the toolkit's, its peers' and plain fits.

Each is a function of a :class:`Task`, one outer fold, and gives what it decided on the rows
held out.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import lightgbm as lgb
import numpy as np
import optuna
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ParameterGrid, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from toolkit.data import Manifest
from toolkit.models import SPACES, Features
from toolkit.models.spaces import suggest_values, to_params
from toolkit.validation import Fold, SearchOptions, SearchResult
from toolkit.validation.blending import add_linear_part
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import inner_folds
from toolkit.validation.ledger import Ledger
from toolkit.validation.search import search_params

MANY = 100_000
GRID = {"n_estimators": (100, 200), "num_leaves": (15, 31), "learning_rate": (0.05, 0.1)}
PEERS = ("flaml", "optuna_integration", "autogluon.tabular")


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
    inner = inner_folds(manifest, fold, grouping="speaker", n_folds=3, seed=0, purpose="search")
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
    """What a way found: its class probabilities of the held-out rows."""

    proba: np.ndarray
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
    params, n_rounds = found.params, found.n_rounds
    booster, prepared = fits.fit(params, task.fold.train, fit="refit", n_rounds=n_rounds)
    if options.get("linear") != "none":
        fresh = inner_folds(
            task.manifest,
            task.fold,
            grouping="speaker",
            n_folds=3,
            seed=0,
            purpose="out-of-fold",
        )
        _, trees = fits.out_of_fold(params, n_rounds, fresh, purpose="out-of-fold")
        booster = add_linear_part(fits, params, booster, fresh, trees).booster
    proba = fits.predict(booster, prepared, task.fold.test)
    return Found(proba, found.score, len(found.trials))


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
    return Found(model.predict_proba(task.held_out), best_score, trials)


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
    values = suggest_values(trial, SPACES["lightgbm"])
    own = to_params("lightgbm", values, n_rows=n_rows, n_features=n_features)
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
    return Found(model.predict_proba(task.held_out), study.best_value, len(study.trials))


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
    return Found(search.predict_proba(task.held_out), search.best_score_, len(search.trials_))


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
    return Found(model.predict(task.held_out), None, len(tuner.study.trials))


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
    return Found(automl.predict_proba(task.held_out), 1 - automl.best_loss, trials)


def autogluon(task: Task) -> Found:
    from autogluon.tabular import TabularPredictor  # noqa: PLC0415

    columns = [f"f{k}" for k in range(task.seen.shape[1])]
    inner = np.zeros(len(task.seen), dtype=int)
    for k, (_, held_back) in enumerate(task.splits):
        inner[held_back] = k
    rows = pd.DataFrame(task.seen, columns=columns).assign(label=task.labels, fold=inner)
    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor(
            label="label",
            groups="fold",  # its models are bags over the inner folds
            eval_metric="accuracy",
            path=folder,
            verbosity=0,
        )
        predictor.fit(
            rows,
            hyperparameters={"GBM": {}},
            hyperparameter_tune_kwargs={
                "num_trials": MANY,
                "scheduler": "local",
                "searcher": "random",
            },
            num_bag_folds=len(task.splits),
            num_stack_levels=0,
            time_limit=task.budget,
            num_cpus=1,
            num_gpus=0,
            ag_args_ensemble={"fold_fitting_strategy": "sequential_local"},
        )
        held_out = pd.DataFrame(task.held_out, columns=columns)
        proba = predictor.predict_proba(held_out).to_numpy()
        board = predictor.leaderboard()
    trials = int(board["model"].str.startswith("LightGBM").sum())
    return Found(proba, float(board["score_val"].max()), trials)


def reference(task: Task, model: Any) -> Found:
    return Found(model.fit(task.seen, task.labels).predict_proba(task.held_out), None, 1)


def logistic(task: Task) -> Found:
    return reference(task, make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)))


def tuned_logistic(task: Task) -> Found:
    p = task.seen.shape[1]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": [each / p for each in (0.3, 1, 3, 10, 30, 100)]},
        cv=task.splits,
        scoring="accuracy",
    )
    search.fit(task.seen, task.labels)
    return Found(search.predict_proba(task.held_out), search.best_score_, 6)


def hist_boosting(task: Task) -> Found:
    return reference(task, HistGradientBoostingClassifier(random_state=task.seed))


def ways() -> Iterator[tuple[str, Callable[[Task], Found]]]:
    plain = {"screening": ("none",), "imbalance": ("none",)}
    yield "toolkit, shipped defaults", toolkit_search
    yield "toolkit, trees alone", lambda task: toolkit_search(task, linear="none")
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
    if importlib.util.find_spec("autogluon"):
        yield "AutoGluon, LightGBM", autogluon
    yield "HistGradientBoosting, defaults", hist_boosting
    yield "logistic regression, C = 1", logistic
    yield "logistic regression, tuned C", tuned_logistic
