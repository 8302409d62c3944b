"""The drivers of the predictions: modalities, families of statistics, features, speakers."""

from typing import Final

import numpy as np

from toolkit.explain.shares import Attribution
from toolkit.report.document import (
    Figure,
    Paragraph,
    Part,
    Row,
    Section,
    Table,
    change_cell,
    format_interval,
    format_number,
    format_share,
    join_names,
    make_table,
    score_cell,
)
from toolkit.report.facts import (
    StudyFacts,
    find_shares,
    name_share,
    rank_shares,
)
from toolkit.report.modality_views import modality_parts
from toolkit.report.shap_figures import (
    N_WATERFALLS,
    drawn_speakers,
    surprising_rows,
)

_N_FAMILIES: Final = 12
_N_SURPRISES: Final = 6


def drivers_section(facts: StudyFacts) -> Section | None:
    """Show which modalities, families and features drive the predictions, and for whom."""
    attribution = facts.attribution
    if attribution is None:
        return None
    parts: list[Part] = []
    if len(attribution.modalities) > 1:
        parts += modality_parts(facts, attribution)
    parts += [
        _family_lead(attribution),
        _families_table(attribution),
        *_linear_parts(attribution),
        *_feature_figures(facts, attribution),
        *_speakers_figure(facts, attribution),
        *_surprises(facts, attribution),
    ]
    return Section("driving", "Modality contributions", tuple(parts))


def _family_lead(attribution: Attribution) -> Paragraph:
    families = rank_shares(attribution, "family")
    above = [r for r in families if r.permuted_high is not None and r.share > r.permuted_high]
    text = f"Of what {attribution.system} says, most comes from " + join_names(
        [f"{name_share(r)} ({format_number(r.share)})" for r in families[:3]]
    )
    if any(r.permuted is not None for r in families):
        gains = sorted(above, key=lambda r: -(r.share - (r.permuted or 0)))[:3]
        named = [name_share(r) for r in gains]
        text += (
            f"; furthest above what permuted labels give: {join_names(named)}"
            if named
            else "; none is above all that permuted labels give"
        )
    return Paragraph(text + ".")


def _families_table(attribution: Attribution) -> Table:
    by_outcome = [
        find_shares(attribution, "family", outcome=outcome) for outcome in ("right", "wrong")
    ]
    rows: list[Row] = []
    for share in rank_shares(attribution, "family")[:_N_FAMILIES]:
        right, wrong = (found.get((share.modality, share.part)) for found in by_outcome)
        rows.append(
            [
                name_share(share),
                score_cell(share.share, share.low, share.high),
                share.permuted,
                right.share if right else None,
                wrong.share if wrong else None,
                change_cell(share.toward_truth),
            ]
        )
    return make_table(
        "families",
        f"Families of statistics in {attribution.system}, the largest first.",
        ["family", "share", "permuted labels", "when right", "when wrong", "toward truth"],
        rows,
        note="Every class, speaker and statistic: explain/shares.csv.",
    )


def _linear_parts(attribution: Attribution) -> list[Part]:
    """Say and show how much of the contributions is linear; nothing without linear parts."""
    found = {r.modality: r for r in attribution.linear if r.system == attribution.system}
    if "" not in found:
        return []
    whole = found.pop("")
    interval = format_interval(whole.low, whole.high)
    named = [f"{name} {format_number(r.share)}" for name, r in found.items()]
    by_modality = f" By modality: {join_names(named)}." if len(found) > 1 else ""
    return [
        Paragraph(
            f"Of the contributions in {attribution.system}, a share of "
            f"{format_number(whole.share)}{f' {interval}' if interval else ''} is linear; the "
            f"rest comes from the trees.{by_modality}"
        ),
        Figure(
            "linear",
            f"Linear part and trees of {attribution.system}: shares of the magnitudes of "
            "their contributions, by modality. Lines are 95 % intervals over speakers.",
            "; ".join(f"{name}: linear {format_number(r.share)}" for name, r in found.items())
            + ".",
        ),
    ]


def _feature_figures(facts: StudyFacts, attribution: Attribution) -> list[Part]:
    """Show shap's own plots of the features with the largest contributions."""
    sample = attribution.samples[attribution.system]
    names = sample.names[:-1]  # the last column sums up all other features
    if not names:
        return []
    parts: list[Part] = [
        Figure(
            "shap-bar",
            "Mean magnitude of the contributions to each class's margin, "
            f"{attribution.system}. Here and below margins are less their mean over the "
            "classes, as in the shares.",
            "The features with the largest contributions: " + ", ".join(names[:8]) + ".",
        )
    ]
    for code in facts.drawn_classes:
        name = facts.classes[code]
        sizes = np.abs(sample.contributions[:, code, :-1]).mean(axis=0)
        first = names[int(sizes.argmax())]
        parts += [
            Figure(
                f"shap-beeswarm-{code}",
                f"{name}: a dot is what a feature contributes to the margin in one utterance.",
                f"Contributions to the margin of {name}; largest on average {first}.",
            ),
            Figure(
                f"shap-heatmap-{code}",
                f"{name}: utterances side by side, alike ones together.",
                f"Contributions to the margin of {name} by utterance.",
            ),
        ]
    return parts


def _speakers_figure(facts: StudyFacts, attribution: Attribution) -> list[Part]:
    """Show the shares by speaker; no figure where there are no shares."""
    speakers, parts = drawn_speakers(facts, attribution)
    if not parts:
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
            f"({most.speaker}), against the true class in {n_misled} of {len(shares)}"
        )
    n, n_shown = facts.n_speakers, len(speakers)
    omitted = "" if n_shown == n else f" {n_shown} of {n} speakers are shown."
    return [
        Figure(
            "driving-people",
            f"What {attribution.system} relies on in each speaker: shares, and the mean "
            f"contribution to the true class's margin, which misleads left of 0.{omitted}",
            "; ".join(words) + ".",
        )
    ]


def _surprises(facts: StudyFacts, attribution: Attribution) -> list[Part]:
    """Show the utterances whose true class got the lowest probability."""
    predictions = facts.predictions[attribution.system]
    totals = attribution.totals[attribution.system]
    modalities = [part[0] for part in totals.parts]
    rows: list[Row] = []
    for row in surprising_rows(predictions, totals, _N_SURPRISES):
        label, y_pred = int(predictions.labels[row]), int(predictions.y_pred[row])
        pull = totals.signed[row, y_pred] - totals.signed[row, label]
        by_modality = {
            name: float(pull[[m == name for m in modalities]].sum())
            for name in dict.fromkeys(modalities)
        }
        most = max(by_modality, key=by_modality.__getitem__)
        rows.append(
            [
                str(predictions.utterances[row]),
                str(predictions.speakers[row]),
                predictions.classes[label],
                predictions.classes[y_pred],
                float(predictions.proba[row, label]),
                f"{most} ({by_modality[most]:+.2f})",
            ]
        )
    n_wrong = int((predictions.labels != predictions.y_pred).sum())
    table = make_table(
        "surprises",
        f"The most surprising utterances of {attribution.system}: the true class was given "
        "least.",
        ["utterance", "speaker", "true", "predicted", "p of true", "pulled most by"],
        rows,
        note=(
            f"{format_share(n_wrong, len(predictions))} were wrong. Pull is the margin of the "
            "predicted class less that of the true one. One utterance over its time: "
            "toolkit explain DIR UTTERANCE."
        ),
    )
    if len(attribution.samples[attribution.system].names) < 2:
        return [table]
    figures = [
        Figure(
            f"shap-waterfall-{k}",
            f"{predictions.utterances[row]}: how the margin of the predicted class came about.",
            f"Contributions to {predictions.classes[int(predictions.y_pred[row])]} in "
            f"{predictions.utterances[row]}.",
        )
        for k, row in enumerate(surprising_rows(predictions, totals, N_WATERFALLS))
    ]
    return [table, *figures]
