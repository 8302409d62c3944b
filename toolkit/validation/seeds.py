"""Systems whose searches were repeated under further seeds: mean, deviation and ensemble."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, repeat, takewhile

import numpy as np

from toolkit.systems import System, seed_name, variant_name
from toolkit.validation.metrics import METRICS
from toolkit.validation.predictions import Predictions
from toolkit.validation.scores import (
    Score,
    describe_jackknife,
    group_tallies,
    pooled_and_left_out,
    score_interval,
    score_predictions,
)


def group_seeds(predictions: Mapping[str, Predictions]) -> dict[str, list[Predictions]]:
    """Group the predictions of one system under several seeds.

    Parameters
    ----------
    predictions : mapping of str to Predictions
        Predictions by name; further seeds of ``text`` are ``text-seed-1``, ``text-seed-2``.

    Returns
    -------
    dict of str to list of Predictions
        Every repeated system to its predictions, those of the study's own seed first.
    """
    grouped = {}
    for name in predictions:
        if System.parse(name).variant:
            continue
        names = list(takewhile(predictions.__contains__, map(seed_name, repeat(name), count())))
        if len(names) > 1:
            grouped[name] = [predictions[each] for each in names]
    return grouped


def average_seeds(tables: Sequence[Predictions]) -> Predictions:
    """Average the probabilities of a system over seeds: the system ``<name>-ensemble``.

    Parameters
    ----------
    tables : sequence of Predictions
        Aligned predictions, one per seed.

    Returns
    -------
    Predictions
        The most probable class of the mean is predicted, of equals the lowest.
    """
    for other in tables[1:]:
        tables[0].check_aligned(other)
    proba = np.mean([table.proba for table in tables], axis=0)
    name = variant_name(tables[0].system, "ensemble")
    return replace(tables[0], system=name, proba=proba, y_pred=proba.argmax(axis=1))


def score_systems(predictions: Mapping[str, Predictions]) -> list[Score]:
    """Score systems in every scope, and repeated ones over their seeds as well.

    Parameters
    ----------
    predictions : mapping of str to Predictions
        Predictions by name, those of further seeds among them.

    Returns
    -------
    list of Score
        Of every system but the further seeds the scores of :func:`score_predictions`. Of a
        repeated one then, by metric, the mean over seeds of the pooled score, with its interval
        over speakers, and its standard deviation (ddof 1).
    """
    repeated = group_seeds(predictions)
    scores: list[Score] = []
    for name, table in predictions.items():
        if not System.parse(name).is_seed:
            scores += score_predictions(table)
            scores += _score_seeds(repeated.get(name, []))
    return scores


def _score_seeds(tables: Sequence[Predictions]) -> Iterator[Score]:
    if not tables:
        return
    first, n = tables[0], len(tables)
    sizes = np.unique(first.speakers, return_counts=True)[1]
    for metric in METRICS.values():
        if metric.local is None:  # the calibration error, which has no interval
            continue
        values = [metric.compute(t.labels, t.proba, t.y_pred) for t in tables]
        left_out = [
            pooled_and_left_out(metric.value, group_tallies(t, metric, t.speakers)[1])[1]
            for t in tables
        ]
        mean = float(np.mean(values))
        low, high = score_interval(metric, mean, np.mean(left_out, axis=0), sizes)
        jackknife = describe_jackknife(metric, mean, "speaker", sizes)
        kept = (first.system, metric.name, "all", "")
        yield Score(*kept, mean, low, high, f"mean over seeds ({n} seeds; {jackknife})", n)
        yield Score(*kept, float(np.std(values, ddof=1)), None, None, "sd over seeds", n)
