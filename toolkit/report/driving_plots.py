"""What drives the predictions, drawn: modalities, people, and shap's own plots of features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.figure import Figure

from toolkit.explain import centre
from toolkit.report.evidence import find_game, find_shares
from toolkit.report.figures import (
    BLUE,
    GREY,
    PAGE_WIDTH,
    VERMILION,
    figure_style,
    shorten,
)
from toolkit.report.shap_plots import (
    N_WATERFALLS,
    drawn_classes,
    plot_bar,
    plot_beeswarm,
    plot_heatmap,
    plot_waterfall,
    surprising_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from toolkit.explain import ShareRecord
    from toolkit.explain.shares import Evidence, Sample
    from toolkit.report.facts import StudyFacts

COLORS: Final = (BLUE, VERMILION, "#009E73", "#CC79A7", "#56B4E9")
"""Of parts, the first of them first."""

N_PEOPLE: Final = 40
"""Most speakers in one figure."""


def plot_modalities(facts: StudyFacts, evidence: Evidence) -> Axes:
    """Draw three views of every modality side by side."""
    names = list(evidence.modalities)
    lost = {r.modality: r for r in evidence.importance if not r.class_name}
    shares = {r.modality: r for r in find_shares(evidence, "modality")}
    scale = 1 if facts.metric.direction == "minimize" else 100
    unit = "" if scale == 1 else ", points"
    with figure_style():
        figure = Figure(figsize=(PAGE_WIDTH, 0.3 * len(names) + 0.8), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True)
        for row, name in enumerate(names):
            value, share = find_game(evidence, "value", name), shares.get(name)
            if value is not None:
                _mark(axes[0], row, value.value, value.low, value.high, scale)
            if share is not None:
                _mark(axes[1], row, share.share, share.low, share.high, 1)
                if share.permuted is not None:
                    axes[1].plot(share.permuted, row, "D", color=VERMILION, ms=3.5, mfc="none")
            if name in lost:
                _mark(axes[2], row, lost[name].value, lost[name].low, lost[name].high, scale)
        titles = (f"Shapley value{unit}", "share", f"loss when shuffled{unit}")
        for ax, title in zip(axes, titles, strict=True):
            ax.axvline(0, color=GREY, lw=0.7, ls="--", zorder=0)
            ax.set_xlabel(title)
            ax.grid(axis="x", lw=0.3, color="#cccccc")
            ax.set_axisbelow(True)
        axes[0].set_yticks(range(len(names)), [shorten(name) for name in names])
        axes[0].set_ylim(len(names) - 0.4, -0.6)
    first: Axes = axes[0]
    return first


def _mark(  # noqa: PLR0917
    ax: Axes, row: int, value: float, low: float | None, high: float | None, scale: int
) -> None:
    if low is not None and high is not None:
        ax.plot([scale * low, scale * high], [row, row], color=BLUE, lw=1.4)
    ax.plot(scale * value, row, "o", color=BLUE, ms=4)


def people_parts(facts: StudyFacts, evidence: Evidence) -> tuple[list[str], list[ShareRecord]]:
    """Pick what the figure of people shows."""
    everybody = sorted(set(facts.predictions[evidence.system].speakers.tolist()))
    n = min(len(everybody), N_PEOPLE)
    places = np.unique(np.linspace(0, len(everybody) - 1, n).astype(int)).tolist()
    people = [everybody[place] for place in places]
    if len(evidence.modalities) > 1:
        return people, find_shares(evidence, "modality")
    families = sorted(find_shares(evidence, "family"), key=lambda r: -r.share)
    return people, families[:3]


def plot_people(facts: StudyFacts, evidence: Evidence) -> Axes:
    """Draw what drives the predictions of each speaker."""
    people, parts = people_parts(facts, evidence)
    level = parts[0].level
    with figure_style():
        height = 0.17 * len(people) + 1
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        rows = {
            (name, r.modality, r.part): (row, r)
            for row, name in enumerate(people)
            for r in find_shares(evidence, level, speaker=name)
        }
        for part, color, marker in zip(parts, COLORS, "os^Dv", strict=False):
            key = (part.modality, part.part)
            found = [rows[name, *key] for name in people if (name, *key) in rows]
            where = [row for row, _ in found]
            label = shorten(" ".join(filter(None, key)))
            style: dict[str, Any] = {"color": color, "marker": marker, "ms": 3.5, "ls": "none"}
            axes[0].plot([r.share for _, r in found], where, label=label, **style)
            axes[1].plot([r.toward_truth for _, r in found], where, **style)
        axes[0].set_xlabel("share")
        axes[1].set_xlabel("toward the true class, mean margin")
        axes[0].set_xlim(left=0)
        axes[1].axvline(0, color=GREY, lw=0.7, ls="--", zorder=0)
        for ax in axes:
            ax.grid(lw=0.3, color="#cccccc")
            ax.set_axisbelow(True)
        axes[0].set_yticks(
            range(len(people)), [shorten(name) for name in people], fontsize=7, parse_math=False
        )
        axes[0].set_ylim(len(people) - 0.4, -0.6)
        figure.legend(loc="outside upper center", ncols=len(parts), frameon=False, fontsize=7)
    first: Axes = axes[0]
    return first


def _centred(sample: Sample, trained: NDArray[np.bool_]) -> Sample:
    """Take the margins of a sample less their mean over the classes.

    A softmax's margins are defined up to a common shift, so only so much tells classes apart.
    """
    return replace(
        sample,
        contributions=centre(sample.contributions, trained),
        base=centre(sample.base, trained),
    )


def draw_explanation(facts: StudyFacts) -> Iterator[tuple[str, Axes]]:
    """Draw what the section on modalities refers to, one figure at a time."""
    evidence = facts.evidence
    if evidence is None:
        return
    if len(evidence.modalities) > 1:
        yield "modalities", plot_modalities(facts, evidence)
    if len(facts.predictions[evidence.system].speakers) and find_shares(evidence, "family"):
        yield "driving-people", plot_people(facts, evidence)
    for system, raw in evidence.samples.items():
        sample = _centred(raw, evidence.totals[system].trained)
        if len(sample.names) < 2:  # every tree is a single leaf: nothing to be drawn
            continue
        end = "" if system == evidence.system else f"-{system}"
        yield f"shap-bar{end}", plot_bar(sample, facts.classes, title=system)
        if system != evidence.system:
            continue
        predictions = facts.predictions[system]
        for code in drawn_classes(facts.classes):
            title = f"{system}: {shorten(facts.classes[code])}"
            yield f"shap-beeswarm-{code}", plot_beeswarm(sample, code, title=title)
            yield f"shap-heatmap-{code}", plot_heatmap(sample, code, title=title)
        rows = surprising_rows(predictions, evidence.totals[system], N_WATERFALLS)
        for k, row in enumerate(rows):
            code = int(predictions.decided[row])
            who = shorten(str(predictions.utterances[row]), 40)
            title = f"{who}: why {shorten(facts.classes[code])}"
            yield f"shap-waterfall-{k}", plot_waterfall(sample, row, code, title=title)
