"""The page and the figure of the leakage premium."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from toolkit.report.document import (
    Cell,
    format_interval,
    format_number,
    format_p,
    render_template,
)
from toolkit.report.figures import BLUE, VERMILION, figure_style, make_axes, set_texts, shorten
from toolkit.validation import METRICS
from toolkit.validation.comparison import ALPHA
from toolkit.validation.fixed import N_PROBE_DRAWS, PremiumScore, ProbeScore, Projection
from toolkit.validation.leakage import N_PREMIUM_SEEDS, N_ROW_DRAWS

_PERSON, _CHANCE_COLOR = "#999999", "#555555"
_WIDTH: Final = 5.6  # inches: what three pairs need

_IN_TRAINING: Final = {
    "speaker premium": "other utterances of the tested speaker",
    "session premium": "other utterances of the tested speaker and of the partner",
    "partner premium": "the partner, in the same room",
    "content premium": "the scripts or sentences of the tested utterances, by other speakers",
}


def _pool(scores: Sequence[PremiumScore]) -> dict[str, dict[str, PremiumScore]]:
    """Index pooled numbers by modality and quantity; of several splits the last is there."""
    pooled: dict[str, dict[str, PremiumScore]] = {}
    for score in scores:
        if not score.group:
            pooled.setdefault(score.modality, {})[score.quantity] = score
    return pooled


def describe_premiums(
    scores: Sequence[PremiumScore], probes: Sequence[ProbeScore] = ()
) -> list[str]:
    """Describe the premiums and the level of chance of each modality, then the probes."""
    sentences = [s for found in _pool(scores).values() for s in _describe_modality(found)]
    return [*sentences, *map(_describe_probe, probes)]


def _describe_modality(found: Mapping[str, PremiumScore]) -> list[str]:
    """Describe the premiums of one modality, then its level of chance."""
    chance = [_describe_chance(found)] if "chance" in found else []
    return [*(_describe_premium(found, name) for name in _premiums(found)), *chance]


def _premiums(found: Mapping[str, PremiumScore]) -> list[str]:
    return [name for name in found if name.endswith("premium")]


def _name_split(split: str) -> str:
    """Name a split in a sentence, such as "leave-one-speaker-out (partner left out)"."""
    if "leaking" in split:
        return split
    group, _, besides = split.partition(", ")
    return f"leave-one-{group}-out" + (f" ({besides})" if besides else "")


def _write_parts(found: Mapping[str, PremiumScore], premium: str) -> list[str]:
    """Write the difference on real rows and that on permuted rows."""
    name = premium.replace("premium", "difference")
    return [f"{found[name + end].value:+.3f}" for end in ("", ", rows permuted")]


def _describe_premium(found: Mapping[str, PremiumScore], name: str) -> str:
    premium = found[name]
    real, permuted = _write_parts(found, name)
    assert premium.p_adjusted is not None
    lenient, strict = _name_split(premium.split), _name_split(premium.against)
    size = f"{_write_difference(premium)}, adjusted p = {format_p(premium.p_adjusted)}"
    text = (
        f"{premium.modality}: the gain of {lenient} over {strict} in "
        f"{METRICS[premium.metric].title} is {real}, and {permuted} on permuted rows, which "
        "hold no information."
    )
    if premium.p_adjusted > ALPHA:
        return f"{text} No {name} was shown ({size})."
    more = "larger" if premium.value > 0 else "smaller"
    return (
        f"{text} The gain is {abs(premium.value):.3f} {more} than on permuted rows ({name} "
        f"{size}). The training rows of {lenient} hold {_IN_TRAINING[name]}."
    )


def _describe_chance(found: Mapping[str, PremiumScore]) -> str:
    chance, real = found["chance"], found["score, first seed"]
    assert chance.p is not None
    assert chance.low is not None
    assert chance.high is not None
    less = "" if chance.p <= ALPHA else " No difference from chance was shown."
    return (
        f"{chance.modality}: with the {chance.against}, {_name_split(chance.split)} scores "
        f"{format_number(chance.value)} in {METRICS[chance.metric].title} on average (95 % of "
        f"{chance.n_repeats} permutations: {format_number(chance.low)} to "
        f"{format_number(chance.high)}); with the real labels {format_number(real.value)} (p = "
        f"{format_p(chance.p)}).{less}"
    )


def format_premium(
    scores: Sequence[PremiumScore],
    *,
    gaps: Sequence[str],
    generated: bool,
    probes: Sequence[ProbeScore] = (),
    projected: Mapping[str, Projection] | None = None,
) -> str:
    """Write the leakage premium as Markdown.

    - gaps: What the data did not allow, in sentences.
    - generated: Whether the recordings were made by this software.
    - projected: Modalities whose projections were drawn.
    """
    pooled = _pool(scores)
    chances = [
        [
            *(modality, found["chance"].against, _write_score(found["chance"])),
            format_number(found["score, first seed"].value),
            *(format_p(found["chance"].p), str(found["chance"].n_repeats)),
        ]
        for modality, found in pooled.items()
        if "chance" in found
    ]
    return render_template(
        "premium.md",
        generated=generated,
        described={m: _describe_modality(found) for m, found in pooled.items()},
        gaps=gaps,
        premiums=[
            [
                *(modality, name.removesuffix(" premium"), each.split, each.against),
                *(*_write_parts(found, name), _write_difference(each)),
                *(format_p(each.p), format_p(each.p_adjusted)),
            ]
            for modality, found in pooled.items()
            for name, each in found.items()
            if name.endswith("premium")
        ],
        title=METRICS[scores[0].metric].title,
        scores=_score_rows(scores),
        measured={name for found in pooled.values() for name in found},
        chances=chances,
        probes=[_describe_probe(probe) for probe in probes],
        projected=projected or {},
        n_seeds=N_PREMIUM_SEEDS,
        n_draws=N_ROW_DRAWS,
        n_probes=N_PROBE_DRAWS,
    )


def _score_rows(scores: Sequence[PremiumScore]) -> list[list[str]]:
    pooled = {(s.modality, s.split, s.quantity): s for s in scores if not s.group}
    rows = []
    for (modality, split, quantity), s in pooled.items():
        if quantity == "score":
            permuted = pooled[modality, split, "score, rows permuted"]
            assert s.sd is not None
            numbers = [format_number(s.sd), format_number(permuted.value), str(s.n_utterances)]
            rows.append([modality, split, _write_score(s), *numbers])
    return rows


def _write_score(score: PremiumScore) -> str:
    return Cell.of_score(score.value, score.low, score.high).text


def _write_difference(score: PremiumScore) -> str:
    interval = format_interval(score.low, score.high, sign=True)
    return f"{score.value:+.3f} {interval}".strip()


def _describe_probe(probe: ProbeScore) -> str:
    """Describe the recall of a probe; "tells" is claimed only where p is at most .05."""
    verdict = "tells" if probe.p <= ALPHA else "was not shown to tell"
    interval = format_interval(probe.low, probe.high)
    return (
        f"{probe.modality}: with each {probe.held_out} held out, a linear probe {verdict} the "
        f"{probe.target} from the features: UAR {format_number(probe.value)}"
        f"{f' {interval}' if interval else ''}, chance {format_number(probe.chance)} (p = "
        f"{format_p(probe.p)}; {probe.n_classes:,} classes, {probe.n_utterances:,} utterances)."
    )


@figure_style()
def plot_space(projection: Projection, classes: Sequence[str], modality: str) -> Axes:
    """Draw both projections, coloured by class and by person; give the first axes."""
    people, counts = np.unique(projection.speakers, return_counts=True)
    # Ten colours can be distinguished: further people are grey.
    drawn = people[np.argsort(-counts, kind="stable")[:10]]
    person = np.full(len(projection.speakers), len(drawn))
    for k, name in enumerate(drawn):
        person[projection.speakers == name] = k
    sides = (
        ("class", projection.labels, list(classes)),
        ("person", person, [*drawn.tolist(), *["others"] * (len(people) > len(drawn))]),
    )
    shares = [f"{share:.0%}".replace("%", " %") for share in projection.explained]
    spaces = (
        ("PCA", projection.pca, [f"component {k + 1} ({s})" for k, s in enumerate(shares)]),
        ("LDA of the classes", projection.lda, ["axis 1", "axis 2"]),
    )
    axes = make_axes(7.2, 6.2, 2, 2)
    panels = [(*space, *side) for space in spaces for side in sides]
    for ax, (title, points, names, kind, codes, labels) in zip(axes, panels, strict=True):
        for k in range(len(labels)):
            is_rest = k == 10 and codes is person
            color = _PERSON if is_rest else mpl.colormaps["tab10"](k % 10)
            x, y = points[codes == k].T
            ax.scatter(x, y, s=6, color=color, alpha=0.7, linewidths=0, label=" ")
        ax.set(xlabel=names[0], ylabel=names[1])
        ax.set_title(f"{title}, by {kind}", fontsize=8)
        if points is projection.pca:
            legend = ax.legend(fontsize=6, frameon=False, markerscale=2)
            set_texts(legend, [shorten(label) for label in labels])
    title = f"{modality}: axes fitted on {projection.n_fitted} other speakers"
    figure: Any = axes[0].figure
    figure.suptitle(title, fontsize=8, parse_math=False)
    return axes[0]


@figure_style()
def plot_premium(scores: Sequence[PremiumScore], modality: str) -> Axes:
    """Draw the pairs of splits: a line per speaker, and points of all utterances together.

    Filled points have intervals over speakers; hollow ones are scores on permuted rows; a grey
    bar is the level of chance.
    """
    pooled = _pool(scores)[modality]
    premiums, chance = [pooled[name] for name in _premiums(pooled)], pooled.get("chance")
    found, permuted = (
        {(s.split, s.group): s for s in scores if (s.modality, s.quantity) == (modality, name)}
        for name in ("score", "score, rows permuted")
    )
    ticks, names = [], []
    width = 1.2 + _WIDTH * len(premiums) / 3
    [ax] = make_axes(width, 3.2)
    person: dict[str, Any] = {"color": _PERSON, "lw": 0.7, "marker": ".", "ms": 3, "alpha": 0.8}
    for number, premium in enumerate(premiums):
        places = (3.0 * number, 3.0 * number + 1.2)
        splits = (premium.split, premium.against)
        for split, speaker in found:
            if split == premium.split and speaker:
                ax.plot(places, [found[each, speaker].value for each in splits], **person)
        for x, split in zip(places, splits, strict=True):
            score, leaks = found[split, ""], "leaking" in split
            color, marker = (VERMILION, "X") if leaks else (BLUE, "o")
            if score.low is not None and score.high is not None:
                ax.plot((x, x), (score.low, score.high), color=color, lw=2, zorder=3)
            ax.plot(x, score.value, color=color, marker=marker, ms=7, zorder=4)
            hollow = permuted[split, ""].value
            ax.plot(x, hollow, color=color, marker="D", ms=5, mfc="white", zorder=4)
            if chance is not None and split == chance.split:
                ends = np.array([chance.low, chance.high])
                ax.plot((x + 0.2, x + 0.2), ends, color=_CHANCE_COLOR, lw=4)
            ticks.append(x)
            names.append(_wrap(split))
        ax.annotate(
            f"{premium.quantity}\n{_write_difference(premium)}",
            (sum(places) / 2, 1.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=7,
        )
    ax.set_xticks(ticks, names, fontsize=7)
    ax.set_xlim(-0.8, ticks[-1] + 0.8)
    ax.set_ylabel(METRICS[premiums[0].metric].title)
    legend = (
        f"{modality}: thin lines are speakers, filled points all utterances, lines through "
        "them 95 % over speakers. Hollow points: rows of the features permuted."
    )
    if chance is not None:
        legend += " Grey bar: 95 % of permuted labels."
    ax.set_xlabel(textwrap.fill(legend, int(16 * width)), fontsize=7)
    return ax


def _wrap(split: str) -> str:
    """Set a split's name on short lines."""
    name, _, rest = split.replace(" (leaking)", ", leaking").partition(", ")
    first = name.replace("-", ", ") + (" folds" if "leaking" in rest else " out")
    return first + (f"\n{rest.upper() if rest == 'leaking' else rest}" if rest else "")
