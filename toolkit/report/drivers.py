"""The drivers of the predictions: modalities, families, features, speakers; the fusions."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from toolkit.explain import ShareRecord, centre
from toolkit.explain.shares import Attribution
from toolkit.fusion.fuse import FusionRecord
from toolkit.pooling.statistics import TFIDF
from toolkit.report.document import (
    MINUS,
    Cell,
    Figure,
    Fold,
    Paragraph,
    Part,
    Row,
    Section,
    Table,
    count_words,
    format_number,
    format_share,
    join_names,
)
from toolkit.report.facts import (
    StudyFacts,
    find_shares,
    name_feature,
    name_share,
    rank_shares,
    tabulate_shares,
)
from toolkit.report.modality_views import modality_parts
from toolkit.report.shap_figures import N_WATERFALLS, drawn_speakers, surprising_rows
from toolkit.systems import BEST_SINGLE, LOG_POOL

_N_FAMILIES: Final = 12
_N_SURPRISES: Final = 6
_N_NAMED: Final = 8
_PULL: Final = "Pull: SHAP value for the predicted class minus that for the true class. "


def drivers_section(facts: StudyFacts) -> Section | None:
    """Show which modalities, families and features drive the predictions, and for whom."""
    attribution = facts.attribution
    if attribution is None:
        return None
    several = len(attribution.compared) > 1
    # Beside a single family there is nothing to share out.
    families = rank_shares(attribution, "family")
    shared = len(families) > 1
    parts = _family_lead(attribution, families if shared else [])
    if several:
        parts = modality_parts(facts, attribution, parts)
    if shared:
        table = _families_table(attribution, families)
        parts.append(Fold("Families of statistics", (table,)))
    shown = [*_feature_figures(facts, attribution), *_speakers_figure(facts, attribution)]
    # With one modality nothing else is above them.
    if several:
        shown = [Fold("SHAP values by feature, class and speaker", tuple(shown))]
    single = tuple(_surprises(facts, attribution))
    parts += [*shown, Fold("Utterances with the least probable true class", single)]
    title = "Modality contributions" if several else "Feature contributions"
    return Section("contributions", title, tuple(parts))


def _family_lead(attribution: Attribution, families: list[ShareRecord]) -> list[Part]:
    """Name the families with the largest shares, and the share of the linear part."""
    texts = []
    if families:
        named = [f"{name_share(r)} ({format_number(r.share)})" for r in families[:3]]
        texts.append(
            f"The largest SHAP shares of {attribution.system} come from {join_names(named)}."
        )
    if any(r.permuted is not None for r in families):
        above = [
            f"{name_share(r)} ({format_number(r.permuted or 0)})"
            for r in families
            if r.low is not None and r.permuted_high is not None and r.low > r.permuted_high
        ]
        if above:
            texts.append(
                "Larger than under permuted labels (their shares in brackets): "
                f"{join_names(above)}."
            )
        elif families[0].low is None:
            texts.append("Fewer than five speakers: not compared with permuted labels.")
        else:
            texts.append("No share is shown to be larger than under permuted labels.")
    for r in attribution.linear:
        if (r.system, r.modality) == (attribution.system, ""):
            share = Cell.of_score(r.share, r.low, r.high).text
            texts.append(
                f"The linear part makes up {share} of the contributions, the trees the rest."
            )
    return [Paragraph(" ".join(texts))] if texts else []


def _families_table(attribution: Attribution, families: list[ShareRecord]) -> Table:
    cells = tabulate_shares(attribution, "family")
    rows: list[Row] = []
    for family in families[:_N_FAMILIES]:
        share, permuted, outcomes = cells[family.modality, family.part]
        rows.append([name_share(family), share, permuted, *outcomes])
    return Table.of(
        "families",
        f"SHAP shares of families of statistics in {attribution.system}, the largest first.",
        ["family", "share", "permuted labels", "when right", "when wrong"],
        rows,
        note=f"Permuted labels: mean share of {count_words(attribution.n_permuted, 'fit')} to "
        "labels permuted within speakers, or exchanged between speakers of one label each. All "
        "shares: explain/shares.csv.",
    )


def _feature_figures(facts: StudyFacts, attribution: Attribution) -> list[Part]:
    """Show shap's own plots of the features with the largest contributions."""
    sample = attribution.samples[attribution.system]
    names = sample.names[:-1]  # the last column sums up all other features
    if not names:
        return []
    shown = [name_feature(facts, name) for name in names]
    # Centred as in the figures: margins are defined up to a shift of all classes.
    centred = centre(sample.contributions, attribution.totals[attribution.system].trained)
    means = np.abs(centred[:, :, :-1]).mean(axis=0)
    order = np.argsort(-means.mean(axis=0))
    largest = [shown[k] for k in order[:_N_NAMED].tolist()]
    fitted = any(f"__{TFIDF}__" in name for name in names)
    per_fold = " Dimensions of tfidf differ between folds: each fits its own." if fitted else ""
    parts: list[Part] = [
        Figure(
            "shap-bar",
            f"Mean magnitude of the SHAP values of {attribution.system} by feature and class. "
            f"SHAP values are of the log-odds, minus their mean over the classes.{per_fold}",
            f"The features with the largest SHAP values: {'; '.join(largest)}.",
        )
    ]
    heatmaps = []
    for code in facts.drawn_classes:
        name = facts.classes[code]
        values, first = f"SHAP values for class {name}", shown[int(means[code].argmax())]
        caption, alt = (
            f"{values}; one dot per utterance.",
            f"{values}; largest on average {first}.",
        )
        parts.append(Figure(f"shap-beeswarm-{code}", caption, alt))
        caption = f"{values}; one column per utterance, similar ones side by side."
        heatmaps.append(Figure(f"shap-heatmap-{code}", caption, f"{values} by utterance."))
    return [*parts, Fold("Heatmaps of SHAP values", tuple(heatmaps))]


def _speakers_figure(facts: StudyFacts, attribution: Attribution) -> list[Part]:
    """Show the shares by speaker; no figure where there are no shares."""
    speakers, parts = drawn_speakers(facts, attribution)
    if len(parts) < 2:
        return []
    found = [find_shares(attribution, parts[0].level, speaker=name) for name in speakers]
    words = []
    for part in parts:
        shares = [r for f in found if (r := f.get((part.modality, part.part))) is not None]
        least, most = (pick(shares, key=lambda r: r.share) for pick in (min, max))
        n_misled = sum(r.toward_truth < 0 for r in shares)
        words.append(
            f"{name_share(part)}: share from "
            f"{format_number(least.share)} ({least.speaker}) to {format_number(most.share)} "
            f"({most.speaker}); against the true class on average in {n_misled} of "
            f"{len(shares)} speakers"
        )
    n, n_shown = facts.n_speakers, len(speakers)
    omitted = "" if n_shown == n else f" {n_shown} of {n} speakers are shown."
    return [
        Figure(
            "driving-people",
            f"SHAP shares in {attribution.system} by speaker, and mean SHAP value for the true "
            f"class; below 0 a modality or family misleads.{omitted}",
            "; ".join(words) + ".",
        )
    ]


def _surprises(facts: StudyFacts, attribution: Attribution) -> list[Part]:
    """Show the utterances whose true class got the lowest probability."""
    predictions = facts.predictions[attribution.system]
    totals = attribution.totals[attribution.system]
    modalities = np.array([part[0] for part in totals.parts])
    names = dict.fromkeys(modalities.tolist())
    header = ["utterance", "speaker", "true", "predicted", "p of true"]
    header += ["largest pull"] * (len(names) > 1)
    rows: list[Row] = []
    for row in surprising_rows(predictions, totals, _N_SURPRISES):
        label, y_pred = int(predictions.labels[row]), int(predictions.y_pred[row])
        pull = totals.signed[row, y_pred] - totals.signed[row, label]
        sizes = {name: float(pull[modalities == name].sum()) for name in names}
        most = max(sizes, key=sizes.__getitem__)
        cells: Row = [
            str(column[row]) for column in (predictions.utterances, predictions.speakers)
        ]
        cells += [predictions.classes[label], predictions.classes[y_pred]]
        # All sums may favour the true class: then the base values decided.
        pulled = f"{most} ({sizes[most]:+.2f})" if sizes[most] > 0 else "none"
        cells += [float(predictions.proba[row, label]), pulled]
        rows.append(cells[: len(header)])
    n_wrong = int((predictions.labels != predictions.y_pred).sum())
    table = Table.of(
        "surprises",
        f"The utterances in which {attribution.system} gave the true class the lowest "
        "probability.",
        header,
        rows,
        note=(
            f"Wrong predictions: {format_share(n_wrong, len(predictions))}. "
            f"{_PULL * (len(names) > 1)}One utterance over time: toolkit explain DIR UTTERANCE."
        ),
    )
    if len(attribution.samples[attribution.system].names) < 2:
        return [table]
    figures = []
    for k, row in enumerate(surprising_rows(predictions, totals, N_WATERFALLS)):
        predicted, true = (
            predictions.classes[int(codes[row])]
            for codes in (predictions.y_pred, predictions.labels)
        )
        what = (
            f"SHAP values of {predictions.utterances[row]}, predicted {predicted} (true {true})"
        )
        where = "from the mean log-odds of the predicted class (dotted) to those here (dashed)."
        figures.append(Figure(f"shap-waterfall-{k}", f"{what}: {where}", f"{what}."))
    return [table, *figures]


#: Records by quantity, system, reference, scope and group.
_Records = dict[tuple[str, str, str, str, str], FusionRecord]


def fusion_parts(facts: StudyFacts) -> list[Part]:
    """Show the fusion ledger."""
    found = {(r.quantity, r.system, r.reference, r.scope, r.group): r for r in facts.fusion}
    fusions = [r.system for r in facts.fusion if r.quantity == "fixed" and r.scope == "all"]
    parts: list[Part] = [Paragraph(_fusion_lead(facts, found))]
    if fusions:
        parts.append(_changes_table(found, fusions))
        parts += [_changes_by(facts, found, fusions, scope) for scope in ("class", "speaker")]
    return [*parts, _pairs_table(facts, found), *_learnt_tables(facts)]


def _fusion_lead(facts: StudyFacts, found: _Records) -> str:
    oracle = found["right", "oracle", "", "all", ""]
    taken = Counter(choice["modality"] for choice in facts.params.get(BEST_SINGLE, {}).values())
    chosen = join_names(
        [f"{name} in {count_words(n, 'fold')}" for name, n in taken.most_common()]
    )
    words = (
        "The reference is best-single: the modality with the best out-of-fold score per fold "
        f"({chosen}). At least one modality was right for "
        f"{format_share(oracle.value, oracle.n)} of {count_words(oracle.n, 'utterance')}: this "
        "is the upper limit of any choice between them."
    )
    ties = found.get(("ties", "vote", "", "all", ""))
    if ties is not None:
        right = found["ties_right", "vote", "", "all", ""]
        words += (
            f" The vote was tied for {format_share(ties.value, ties.n)}. A tie goes to the "
            "class with the larger sum of probabilities, which was right for "
            f"{format_share(right.value, right.n)} of them."
        )
    return words


def _changes_table(found: _Records, fusions: list[str]) -> Table:
    rows: list[Row] = []
    for system in fusions:
        fixed, broken = (found[q, system, BEST_SINGLE, "all", ""] for q in ("fixed", "broken"))
        net = fixed.value - broken.value
        shares = (Cell.of_share(record.value, record.n) for record in (fixed, broken))
        absent = found["absent", system, "", "all", ""].value
        rows.append([system, *shares, Cell(f"{net:+,}", float(net)), absent])
    caption = (
        "Utterances corrected by each fusion (right where best-single is wrong) and broken."
    )
    header = ["system", "corrected", "broken", "net", "missing"]
    return Table.of("fusion", caption, header, rows)


def _changes_by(facts: StudyFacts, found: _Records, fusions: list[str], scope: str) -> Table:
    rows: list[Row] = []
    for record in facts.fusion:
        if (record.quantity, record.scope) != ("right", scope):
            continue
        row: Row = [record.group, record.n, Cell.of_share(record.value, record.n)]
        for system in fusions:
            fixed, broken = (
                found[quantity, system, BEST_SINGLE, scope, record.group].value
                for quantity in ("fixed", "broken")
            )
            row.append(Cell(f"+{fixed} {MINUS}{broken}", float(fixed - broken)))
        rows.append(row)
    which = "true class" if scope == "class" else "speaker"
    return Table.of(
        f"fusion-by-{scope}",
        f"Utterances corrected (+) and broken ({MINUS}) by {which}.",
        [which, "n", "any modality right", *fusions],
        rows,
        note="A column is sorted by the net change.",
    )


def _pairs_table(facts: StudyFacts, found: _Records) -> Table:
    rows: list[Row] = []
    for same in facts.fusion:
        if (same.quantity, same.scope) == ("agreement", "all"):
            fault = found["double_fault", same.system, same.reference, "all", same.group]
            shares = Cell.of_share(same.value, same.n), Cell.of_share(fault.value, same.n)
            rows.append([same.system, same.reference, *shares, same.n])
    return Table.of(
        "modality-pairs",
        "Agreement of two modalities, where both are present.",
        ["modality", "other modality", "same decision", "both wrong", "n"],
        rows,
        note="The fewer utterances both get wrong, the more a fusion can gain.",
    )


def _learnt_tables(facts: StudyFacts) -> list[Table]:
    """Tabulate the learnt fusion parameters fold by fold; no table where nothing was learnt."""
    chosen, weights, stacked, pooled = (
        facts.params.get(name, {}) for name in (BEST_SINGLE, "weighted", "stacked", LOG_POOL)
    )
    folds = sorted({*weights, *stacked, *chosen, *pooled})
    if not folds:
        return []
    columns: dict[str, list[Any]] = {"fold": folds}
    if chosen:
        columns["best-single"] = [chosen[fold]["modality"] for fold in folds]
    columns |= _list_weights(weights, folds, "weight of ")
    if stacked:
        penalties = [stacked[fold]["C"] for fold in folds]
        columns["C of stacked"] = [Cell(f"{penalty:g}", penalty) for penalty in penalties]
    columns |= _list_weights(pooled, folds, "log-pool: ")
    caption = "Parameters learnt from the training speakers, by fold."
    rows = [*zip(*columns.values(), strict=True)]
    return [Table.of("fusion-learnt", caption, [*columns], rows)]


def _list_weights(
    records: Mapping[str, Any], folds: list[str], title: str
) -> dict[str, list[Any]]:
    names = sorted({name for record in records.values() for name in record["weights"]})
    return {f"{title}{n}": [records[fold]["weights"][n] for fold in folds] for n in names}
