"""Do intervals and tests keep what the reports promise, where the truth is known?

Predictions are simulated, nothing is fitted. A speaker's chance of a right answer varies on the
logit; intervals and p-values come from the shipped functions. The test of version
0.1.0, the mean over speakers in the max-T, stands beside the shipped one and exists here alone.

    python studies/benchmarks/claims.py --csv claims.csv
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations, product
from pathlib import Path

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
)

from toolkit.validation.comparison import (
    Contrast,
    _mean_over_seeds,
    _SwapPatterns,
    better_baseline,
    compare_systems,
    swap_p_values,
    swap_patterns,
)
from toolkit.validation.metrics import METRICS, ratio
from toolkit.validation.predictions import Predictions
from toolkit.validation.scores import (
    group_tallies,
    jackknife_interval,
    pooled_and_left_out,
    score_interval,
)

Floats = NDArray[np.float64]
Row = dict[str, str | int | float]

SEED = 20261129
SIZES = ("equal", "40-400", "one has half")
ACCURACIES, SPREADS = (0.3, 0.6, 0.9, 0.97), (0.35, 1.0)
#: Shares of the classes: two of one kind, and those of IEMOCAP's smaller setting.
SHARES = {2: np.array([0.6, 0.4]), 4: np.array([328, 308, 180, 520]) / 1336}
#: Confidences of a system, more often high where it is right.
CONFIDENCES = np.array([0.5, 0.6, 0.75, 0.9, 0.97])
WHEN_RIGHT = np.array([0.1, 0.15, 0.25, 0.25, 0.25])
WHEN_WRONG = np.array([0.35, 0.25, 0.2, 0.15, 0.05])
N_SYSTEMS, N_SAMPLED, GAIN = 8, 1999, 0.5
MICRO = METRICS["f1_micro"]
#: Of hits and rows, shape (..., 2): what the mean loss is of losses and rows.
HIT_RATE = METRICS["log_loss"].value


def pool_difference(contrast):
    """Give the pooled difference that a contrast tests: a minus b."""
    return contrast.value(contrast.a.sum(axis=0)) - contrast.value(contrast.b.sum(axis=0))


def draw_sizes(rng: Generator, kind: str, n_speakers: int, repeats: int) -> NDArray[np.int64]:
    """Utterances of every speaker in every study, shape (repeats, n_speakers)."""
    if kind == "40-400":
        return rng.integers(40, 401, (repeats, n_speakers))
    sizes = np.full((repeats, n_speakers), 120)
    if kind == "one has half":
        sizes[:, 0] = 120 * (n_speakers - 1)
    return sizes


def mean_chance(centre: float, spread: float) -> float:
    """Mean over speakers of the chance of a right answer, by quadrature."""
    nodes, weights = hermegauss(80)
    return float(np.average(expit(centre + spread * nodes), weights=weights))


def draw_counts(rng: Generator, true: NDArray[np.int64], chances: Floats) -> Floats:
    """Hits, true and predicted rows by class: (repeats, n_speakers, 3, n_classes)."""
    hits = rng.binomial(true, chances[..., None])
    given = hits.copy()
    n_classes = true.shape[-1]
    for code in range(n_classes):
        others = (np.arange(n_classes) != code) / (n_classes - 1)
        given += rng.multinomial(true[..., code] - hits[..., code], others)
    return np.stack([hits, true, given], axis=-2).astype(np.float64)


def expected_counts(shares: Floats, chance: float) -> Floats:
    hits = shares * chance
    others = (1 - np.eye(len(shares))) / (len(shares) - 1)
    return np.stack([hits, shares, hits + (shares - hits) @ others])


def draw_losses(rng: Generator, counts: Floats) -> Floats:
    """Summed log-loss and rows: (repeats, n_speakers, 2)."""
    rows = counts[..., 1, :].sum(axis=-1).astype(np.int64)
    right = counts[..., 0, :].sum(axis=-1).astype(np.int64)
    losses = loss_levels(counts.shape[-1])
    sums = rng.multinomial(right, WHEN_RIGHT) @ losses[0]
    sums = sums + rng.multinomial(rows - right, WHEN_WRONG) @ losses[1]
    return np.stack([sums, rows], axis=-1).astype(np.float64)


def loss_levels(n_classes: int) -> Floats:
    """Log-loss of every confidence, where right and where wrong."""
    return -np.log([CONFIDENCES, (1 - CONFIDENCES) / (n_classes - 1)])


def coverage(repeats: int) -> Iterator[Row]:
    """Share of intervals that hold the truth, scenario by scenario."""
    scenarios = product((5, 10, 24, 90), SIZES, ACCURACIES, SPREADS, SHARES)
    for number, (n_speakers, kind, accuracy, spread, n_classes) in enumerate(scenarios):
        rng = np.random.default_rng([SEED, 1, number])
        shares = SHARES[n_classes]
        sizes = draw_sizes(rng, kind, n_speakers, repeats)
        true = rng.multinomial(sizes, shares)
        own, other = rng.standard_normal((2, repeats, n_speakers))
        centres = logit(accuracy), logit(accuracy) - GAIN
        chance, chance_b = (mean_chance(centre, spread) for centre in centres)
        counts = draw_counts(rng, true, expit(centres[0] + spread * own))
        mixed = 0.7 * own + np.sqrt(1 - 0.7**2) * other
        counts_b = draw_counts(rng, true, expit(centres[1] + spread * mixed))
        losses = loss_levels(n_classes)
        loss = chance * WHEN_RIGHT @ losses[0] + (1 - chance) * WHEN_WRONG @ losses[1]
        expected = expected_counts(shares, chance)
        scenario: Row = {
            "speakers": n_speakers,
            "sizes": kind,
            "accuracy": accuracy,
            "sd": spread,
            "classes": n_classes,
        }
        for name, tallies, truth in (
            ("f1_micro", counts, float(MICRO.value(expected))),
            ("uar", counts, float(METRICS["uar"].value(expected))),
            ("mcc", counts, float(METRICS["mcc"].value(expected))),
            ("log_loss", draw_losses(rng, counts), float(loss)),
        ):
            metric = METRICS[name]
            pooled, left_out = pooled_and_left_out(metric.value, tallies.swapaxes(0, 1))
            ends = [
                score_interval(metric, *study)
                for study in zip(pooled.tolist(), left_out.T, sizes, strict=True)
            ]
            yield {**scenario, "metric": name, **compare_ends(ends, truth)}
        parts = [
            pooled_and_left_out(MICRO.value, each.swapaxes(0, 1)) for each in (counts, counts_b)
        ]
        pooled, left_out = (a - b for a, b in zip(*parts, strict=True))
        ends = [
            jackknife_interval(*study, low=-1, high=1)
            for study in zip(pooled.tolist(), left_out.T, sizes, strict=True)
        ]
        yield {**scenario, "metric": "difference", **compare_ends(ends, chance - chance_b)}


def compare_ends(ends: Sequence[tuple[float | None, float | None]], truth: float) -> Row:
    low, high = np.array(ends, dtype=np.float64).T
    return {
        "covered": float(np.mean((low <= truth) & (truth <= high))),
        "truth above": float(np.mean(truth > high)),
        "truth below": float(np.mean(truth < low)),
        "median width": float(np.median(high - low)),
    }


def first_version(differences: Floats, patterns: _SwapPatterns) -> Floats:
    """Adjust p as version 0.1.0 did: step-down max-T of the mean over speakers."""
    n_groups, n_pairs = differences.shape
    squares = n_groups * (differences**2).sum(axis=0)
    found = ratio(differences.sum(axis=0) ** 2, squares)
    order = np.argsort(-found, kind="stable")
    sums = (1.0 - 2.0 * patterns.swapped) @ differences[:, order]
    statistics = ratio(sums**2, np.broadcast_to(squares[order], sums.shape))
    largest = np.maximum.accumulate(statistics[:, ::-1], axis=1)[:, ::-1]
    adjusted = np.empty(n_pairs)
    counts = (largest >= found[order] - 1e-12).sum(axis=0)
    adjusted[order] = np.maximum.accumulate(patterns.p_values(counts))
    return adjusted


def make_patterns(n_speakers: int) -> _SwapPatterns:
    """All swaps, or fewer drawn ones than shipped, so that many studies can be tested."""
    every = swap_patterns(n_speakers)
    return every if every.exact else _SwapPatterns(every.swapped[:N_SAMPLED], exact=False)


def tilt(sizes: NDArray[np.int64]) -> Floats:
    """Differences of chance by speaker that leave the pooled chance as it is.

    Speakers who together hold half of the rows gain .1, the others lose as much.
    """
    order = np.argsort(-sizes, axis=1, kind="stable")
    held = np.cumsum(np.take_along_axis(sizes, order, 1), axis=1) / sizes.sum(1)[:, None]
    large = np.empty(sizes.shape, dtype=bool)
    np.put_along_axis(large, order, held <= np.maximum(0.5, held[:, :1]), axis=1)
    rows = (sizes * large).sum(axis=1, keepdims=True)
    return np.where(large, 0.1, -0.1 * rows / (sizes.sum(axis=1, keepdims=True) - rows))


CASES = (
    "equal systems",
    "equal pooled, shared effects",
    "equal pooled, own effects",
    "one is better",
)


def families(repeats: int) -> Iterator[Row]:
    """Errors, power and named winners of both versions over all pairs of eight systems.

    With shared effects all systems find the same speakers easy, with own effects each its own.
    """
    scenarios = product((10, 24), SIZES, SPREADS, CASES, ("f1_micro", "uar"))
    for number, (n_speakers, kind, spread, case, name) in enumerate(scenarios):
        tilted = case.startswith("equal pooled")
        if (tilted and kind == "equal") or (
            name == "uar" and (n_speakers > 10 or spread > 0.5)
        ):
            continue
        rng = np.random.default_rng([SEED, 2, number])
        studies = max(repeats if n_speakers == 10 and name == "f1_micro" else repeats // 4, 10)
        sizes = draw_sizes(rng, kind, n_speakers, studies)
        true = rng.multinomial(sizes, SHARES[4])
        effects = rng.standard_normal((N_SYSTEMS, studies, n_speakers))
        if case.endswith("shared effects"):
            effects[1:] = effects[0]
        centres = np.full(N_SYSTEMS, logit(0.6))
        centres[0] += GAIN * (case == "one is better")
        chances = expit(centres[:, None, None] + spread * effects)
        if tilted:
            # Half of the systems are better for speakers of many rows and worse for the others.
            odd = np.arange(N_SYSTEMS)[:, None, None] % 2
            chances = np.clip(chances + odd * tilt(sizes), 0, 1)
        counts = np.stack([draw_counts(rng, true, each) for each in chances])
        if name == "f1_micro":  # hits and rows are all that it needs
            counts = counts[..., :2, :].sum(axis=-1)
        yield {
            "speakers": n_speakers,
            "sizes": kind,
            "sd": spread,
            "case": case,
            "metric": name,
            "studies": studies,
            **compare_versions(counts, name, better=case == "one is better"),
        }


def largest_speaker(repeats: int) -> Iterator[Row]:
    """False winners by the share of the largest speaker.

    Half of the systems are better for this speaker and as much worse for the others, so that
    the pooled scores are equal; each system finds other speakers easy.
    """
    for number, (n_speakers, share) in enumerate(product((10, 24), (0.2, 0.3, 0.4, 0.5))):
        rng = np.random.default_rng([SEED, 6, number])
        studies = max(repeats // 4, 10)
        sizes = np.full((studies, n_speakers), 120)
        sizes[:, 0] = round(120 * (n_speakers - 1) * share / (1 - share))
        true = rng.multinomial(sizes, SHARES[4])
        effects = rng.standard_normal((N_SYSTEMS, studies, n_speakers))
        gains = np.where(np.arange(n_speakers) == 0, 0.1, -0.1 * share / (1 - share))
        odd = np.arange(N_SYSTEMS)[:, None, None] % 2
        chances = np.clip(expit(logit(0.6) + 0.35 * effects) + odd * gains, 0, 1)
        counts = np.stack([draw_counts(rng, true, each) for each in chances])
        hits = counts[..., :2, :].sum(axis=-1)
        row = compare_versions(hits, "f1_micro", better=False)
        yield {
            "speakers": n_speakers,
            "largest share": share,
            "studies": studies,
            "familywise": row["familywise"],
            "first familywise": row["first familywise"],
        }


def compare_versions(counts: Floats, name: str, *, better: bool) -> Row:
    """Test every study by both versions; with a better system it is the first."""
    value, local = HIT_RATE, HIT_RATE
    if name != "f1_micro":
        value, local = METRICS[name].value, METRICS[name].local or METRICS[name].value
    pairs = list(combinations(range(len(counts)), 2))
    patterns = make_patterns(counts.shape[2])
    true = np.array([better and a == 0 for a, _ in pairs])
    wrong, found, named, opposite = (np.zeros(2) for _ in range(4))
    n_below = 0
    for study in counts.swapaxes(0, 1):
        contrasts = [Contrast(value, study[a], study[b]) for a, b in pairs]
        pooled = np.array([pool_difference(each) for each in contrasts])
        scores = local(study)
        by_speaker = np.stack([scores[a] - scores[b] for a, b in pairs], axis=1)
        alone, shipped = swap_p_values(contrasts, patterns)
        n_below += int((shipped < alone).sum())
        adjusted = (shipped, first_version(by_speaker, patterns))
        tested = (pooled, by_speaker.mean(axis=0))
        for version in range(2):
            shown = adjusted[version] <= 0.05
            wrong[version] += (shown & ~true).any()
            found[version] += (shown & true & (pooled > 0)).sum() / max(true.sum(), 1)
            named[version] += shown.sum()
            opposite[version] += (shown & (pooled * tested[version] < 0)).sum()
    assert n_below == 0, "an adjusted p lies below the raw one"
    row: Row = {}
    for version, label in enumerate(("", "first ")):
        row |= {f"{label}familywise": wrong[version] / counts.shape[1]}
        row |= {f"{label}power": found[version] / counts.shape[1] if better else ""}
        row |= {f"{label}named": int(named[version])}
        row |= {f"{label}opposite": int(opposite[version])}
    return row


def make_table(
    system: str, labels: NDArray[np.int64], numbers: NDArray[np.int64], proba: Floats
) -> Predictions:
    """Predictions of rows in order, a fold for every speaker."""
    n = len(labels)
    return Predictions(
        system=system,
        classes=tuple("abcd"[: proba.shape[1]]),
        utterances=np.array([f"u{row:05d}" for row in range(n)]),
        speakers=np.array([f"P{k:02d}" for k in numbers.tolist()]),
        sessions=None,
        folds=numbers,
        present=np.ones(n, dtype=bool),
        labels=labels,
        proba=proba,
    )


def noise_proba(rng: Generator, way: str, shares: Floats, numbers: NDArray[np.int64]) -> Floats:
    """Sure predictions that know nothing but `shares` (n_speakers, n_classes) of training rows.

    A model takes people for one another, so a guess may be one class for a whole person.
    """
    width = shares.shape[1]
    mixes = {
        "by row": lambda one: one,
        "by person": lambda one: np.eye(width)[rng.choice(width, p=one)],
        "in between": lambda one: rng.dirichlet(np.maximum(2 * one, 1e-3)),
    }
    mix = np.array([mixes[way](one) for one in shares])[numbers]
    codes = (rng.random((len(numbers), 1)) > np.cumsum(mix, axis=1)[:, :-1]).sum(axis=1)
    return np.eye(width)[codes]


def baselines(repeats: int) -> Iterator[Row]:
    """Share of noise that beats a baseline: the shipped one, and majority alone."""
    designs = ("balanced, one label a person", "drawn, one label a person", "mixed labels")
    ways = ("by row", "by person", "in between")
    scenarios = product((10, 24), (2, 4), designs, ways, ("f1_micro", "uar"))
    for number, (n_speakers, n_classes, design, way, name) in enumerate(scenarios):
        rng = np.random.default_rng([SEED, 3, number])
        patterns = make_patterns(n_speakers)
        beaten = np.zeros(2)
        studies = max(repeats // 3, 10)
        for _ in range(studies):
            labels_of = np.arange(n_speakers) % n_classes
            if design.startswith("drawn"):
                labels_of = rng.integers(0, n_classes, n_speakers)
            numbers = np.repeat(np.arange(n_speakers), rng.integers(10, 60, n_speakers))
            labels = labels_of[numbers]
            if design == "mixed labels":
                labels = rng.choice(n_classes, len(numbers), p=SHARES[n_classes])
            each = np.zeros((n_speakers, n_classes))
            np.add.at(each, (numbers, labels), 1)
            training = each.sum(axis=0) - each
            shares = training / training.sum(axis=1, keepdims=True)
            majority = make_table("majority", labels, numbers, shares[numbers])
            noise = make_table("noise", labels, numbers, noise_proba(rng, way, shares, numbers))
            baseline = better_baseline({"majority": majority}, name)
            for place, rival in enumerate((baseline, majority)):
                tallies = [
                    group_tallies(one, METRICS[name], one.speakers)[1] for one in (noise, rival)
                ]
                contrast = Contrast(METRICS[name].value, *tallies)
                p = swap_p_values([contrast], patterns)[0][0]
                beaten[place] += p <= 0.05 and pool_difference(contrast) > 0
        yield {
            "speakers": n_speakers,
            "classes": n_classes,
            "labels": design,
            "guesses": way,
            "metric": name,
            "studies": studies,
            "beats better baseline": beaten[0] / studies,
            "beats majority": beaten[1] / studies,
        }


def best_of_nine(repeats: int) -> Iterator[Row]:
    """Coverage and bias of the highest of nine equal systems, beside a fixed one."""
    for number, (n_speakers, kind, spread) in enumerate(product((10, 24), SIZES, SPREADS)):
        rng = np.random.default_rng([SEED, 4, number])
        sizes = draw_sizes(rng, kind, n_speakers, repeats)
        true = rng.multinomial(sizes, SHARES[4])
        effects = rng.standard_normal((9, repeats, n_speakers))
        counts = np.stack(
            [draw_counts(rng, true, expit(logit(0.6) + spread * one)) for one in effects]
        )
        pooled, left_out = pooled_and_left_out(MICRO.value, np.moveaxis(counts, 2, 0))
        truth, studies = mean_chance(logit(0.6), spread), np.arange(repeats)
        row: Row = {"speakers": n_speakers, "sizes": kind, "sd": spread}
        for label, chosen in (("primary", np.zeros_like(studies)), ("best", pooled.argmax(0))):
            values, without = pooled[chosen, studies], left_out[:, chosen, studies]
            ends = [
                score_interval(MICRO, *study)
                for study in zip(values.tolist(), without.T, sizes, strict=True)
            ]
            row[f"{label} covered"] = compare_ends(ends, truth)["covered"]
            row[f"{label} bias"] = float(values.mean() - truth)
        yield row


def seeds(repeats: int) -> Iterator[Row]:
    """False differences of equal pipelines, whose searches end otherwise under every seed.

    A seed moves the chances of everybody, and of each speaker, on the logistic scale; each
    pipeline finds other speakers easy. One utterance is as hard under every seed.
    """
    shape, patterns = (10, 100), swap_patterns(10)
    for number, noise in enumerate((0.0, 0.05, 0.1, 0.2)):
        rng = np.random.default_rng([SEED, 7, number])
        spread: list[float] = []
        shown = {(1, 1): 0, (3, 3): 0, (5, 5): 0, (5, 1): 0}
        for _ in range(repeats):
            hard = rng.normal(logit(0.6), 0.35, (10, 1)) + 0.8 * rng.logistic(size=shape)
            systems = []
            for _ in range(2):
                moved = rng.normal(0, noise, (5, 1, 1)) + rng.normal(0, noise, (5, 10, 1))
                own = rng.normal(0, 0.25, (10, 1)) + 0.6 * rng.standard_normal((5, *shape))
                hits = (hard + own + moved > 0).sum(axis=2)
                systems.append(np.stack([hits, np.full_like(hits, shape[1])], axis=-1))
            a, b = (np.swapaxes(each, 0, 1).astype(float) for each in systems)
            spread.append(float(HIT_RATE(a.sum(axis=0)).std(ddof=1)))
            for n_a, n_b in shown:
                second = np.repeat(b[:, :1], n_a, axis=1) if n_b == 1 else b[:, :n_b]
                mean = Contrast(_mean_over_seeds(HIT_RATE), a[:, :n_a], second)
                alone, _ = swap_p_values([mean], patterns)
                shown[n_a, n_b] += int(alone[0] <= 0.05)
        row: Row = {"SD over seeds": float(np.mean(spread))}
        yield row | {f"{n_a} and {n_b}": n / repeats for (n_a, n_b), n in shown.items()}


def named_winners(repeats: int) -> Iterator[Row]:
    """Winners that `compare_systems` names, against scikit-learn's scores of the rows.

    Half of the systems are better for the one speaker with half of the rows.
    """
    scores = {
        "f1_micro": accuracy_score,
        "f1_macro": partial(f1_score, average="macro"),
        "uar": balanced_accuracy_score,
        "mcc": matthews_corrcoef,
    }
    for number, (name, score) in enumerate(scores.items()):
        rng = np.random.default_rng([SEED, 5, number])
        sizes = draw_sizes(rng, "one has half", 8, 1) // 4
        numbers = np.repeat(np.arange(8), sizes[0])
        named, opposite, below, studies = 0, 0, 0, max(repeats // 10, 10)
        for _ in range(studies):
            labels = rng.choice(4, len(numbers), p=SHARES[4])
            systems = []
            for system in range(6):
                chance = 0.6 + system % 2 * tilt(sizes)[0] + 0.03 * system
                right = rng.random(len(numbers)) < chance[numbers]
                given = np.where(right, labels, rng.integers(0, 4, len(numbers)))
                systems.append(make_table(f"s{system}", labels, numbers, np.eye(4)[given]))
            tables = {one.system: one for one in systems}
            for each in compare_systems(systems, name):
                a, b = (score(labels, tables[one].y_pred) for one in (each.a, each.b))
                named += each.shows_difference
                opposite += each.shows_difference and (a - b) * each.difference <= 0
                below += each.p_adjusted < each.p
        yield {
            "metric": name,
            "studies": studies,
            "named": named,
            "opposite": opposite,
            "adjusted below raw": below,
        }


def summarise_coverage(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Count the scenarios within .92-.97 by metric and number of speakers; list the others."""
    summary: list[Row] = []
    for metric, n_speakers in dict.fromkeys((r["metric"], r["speakers"]) for r in rows):
        covered = np.array(
            [
                float(r["covered"])
                for r in rows
                if (r["metric"], r["speakers"]) == (metric, n_speakers)
            ]
        )
        summary.append(
            {
                "metric": metric,
                "speakers": n_speakers,
                "scenarios": len(covered),
                "within .92-.97": int(is_nominal(covered).sum()),
                "lowest": float(covered.min()),
                "highest": float(covered.max()),
            }
        )
    summary.sort(key=lambda row: str(row["metric"]))
    return summary, [row for row in rows if not is_nominal(np.array(row["covered"]))]


def is_nominal(covered: Floats) -> NDArray[np.bool_]:
    return (covered >= 0.92) & (covered <= 0.97)


def show(title: str, rows: Sequence[Row]) -> None:
    """Print rows as a Markdown table."""
    if not rows:
        print(f"\n{title}: none")
        return
    print(f"\n{title}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        cells = [f"{c:.3f}" if isinstance(c, float) else str(c) for c in row.values()]
        print(f"| {' | '.join(cells)} |", flush=True)


TABLES = {
    "coverage": coverage,
    "families": families,
    "largest": largest_speaker,
    "winners": named_winners,
    "baselines": baselines,
    "best": best_of_nine,
    "seeds": seeds,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats", type=int, default=1500, help="simulated studies a scenario"
    )
    parser.add_argument("--quick", action="store_true", help="100 studies a scenario")
    parser.add_argument("--only", choices=TABLES, action="append", help="tables, else all")
    parser.add_argument("--csv", type=Path, help="file for every row of every table")
    options = parser.parse_args()
    repeats = 100 if options.quick else options.repeats
    written: list[Row] = []
    for name in options.only or TABLES:
        rows = list(TABLES[name](repeats))
        written += [{"table": name, **row} for row in rows]
        if name == "coverage":
            summary, others = summarise_coverage(rows)
            show("Coverage of 95 % intervals", summary)
            show("Scenarios outside .92-.97", others)
        else:
            show(name.capitalize(), rows)
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file, list(dict.fromkeys(key for row in written for key in row))
            )
            writer.writeheader()
            writer.writerows(written)


if __name__ == "__main__":
    main()
