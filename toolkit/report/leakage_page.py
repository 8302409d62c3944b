"""The page and the figure of the leakage premium."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.report.document import format_interval, format_number, format_p, score_cell
from toolkit.report.figures import set_texts, shorten
from toolkit.validation import METRICS
from toolkit.validation.comparison import ALPHA
from toolkit.validation.fixed import N_PROBE_DRAWS, PremiumScore, ProbeScore, Projection
from toolkit.validation.leakage import N_PREMIUM_SEEDS, N_ROW_DRAWS

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
}
# Okabe and Ito's vermilion, blue and grey are distinct for colour-blind readers.
_LEAKING, _HONEST, _PERSON, _CHANCE_COLOR = "#d55e00", "#0072b2", "#999999", "#555555"
_WIDTH: Final = 5.6  # inches: what three pairs need

_INTRODUCTION: Final = (
    "One fixed configuration (LightGBM, not searched) was fitted under splits that differ in "
    "the people on both sides. **The random splits leak**: they test people who are in the "
    "training rows, and serve only to measure what that adds. No study of this toolkit can be "
    "run with them."
)
_NOTE: Final = (
    "Scores and differences are means over {n_seeds} seeds. Their intervals are 95 %, "
    "jackknife over speakers, and describe new speakers for this configuration. *Rows "
    "permuted*: the same on features whose rows were permuted over all utterances, mean of "
    "{n_draws} permutations. Such features hold no information. A difference on permuted "
    "rows comes from the class shares of the training rows, and is no leak. **Premium = "
    "difference - difference with rows permuted.** Its p exchanges each speaker's real and "
    "permuted predictions together between the two splits. It is adjusted for all premiums of "
    "a modality by step-down max-T. The partner premium compares two splits that learn from as "
    "many people: each leaves out the tested speaker and one more, of another session or the "
    "partner. {content}`premium.csv` lists all speakers."
)
_CONTENT: Final = (
    "The content premium compares two splits that learn from as many utterances, per class as "
    "nearly as may be. Beside the tested speaker, one leaves out the part of the content that "
    "holds the tested utterances, the other as many utterances of other content. "
)
_CHANCE: Final = (
    "*Chance*: mean and 95 % range of the scores of leave-one-speaker-out on permuted labels, "
    "with the first seed. p = (b + 1) / (N + 1), where b of N permutations score at least as "
    "well as the real labels."
)
_PROBES: Final = (
    "*Probe*: a logistic regression with one penalty and classes of equal weight, five folds. "
    "UAR is the unweighted average recall. Intervals are 95 %, jackknife over speakers. Chance "
    "is the mean over {n} permutations of the target. p = (b + 1) / ({n} + 1), where b of them "
    "score at least as well; it is not adjusted for the number of probes. Where the features "
    "tell the person or the content, and these go with the label, a split that leaks them may "
    "score higher. The axes of PCA and LDA are fitted on half of the speakers, and utterances "
    "of the others are shown: on the rows that it was fitted on, LDA separates classes of "
    "noise as well."
)
_IN_TRAINING: Final = {
    "speaker premium": "other utterances of the tested speaker",
    "session premium": "other utterances of the tested speaker and of the partner",
    "partner premium": "the partner, in the same room",
    "content premium": "the scripts or sentences of the tested utterances, by other speakers",
}


def _find_premiums(scores: Sequence[PremiumScore], modality: str) -> list[PremiumScore]:
    """Pick the pooled premiums of one modality, at most four."""
    return [
        score
        for score in scores
        if score.modality == modality and not score.group and score.quantity.endswith("premium")
    ]


def describe_modality(scores: Sequence[PremiumScore], modality: str) -> list[str]:
    """Describe the premiums and the level of chance of one modality in sentences.

    Parameters
    ----------
    scores : sequence of PremiumScore
        Scores and premiums of any modalities.
    modality : str
        The modality of the features.

    Returns
    -------
    list of str
        Each premium with interval, adjusted p and both its parts, then the level of chance. A
        difference is claimed only where the adjusted p is at most .05.
    """
    sentences = [
        _describe_premium(premium, *_find_parts(scores, premium))
        for premium in _find_premiums(scores, modality)
    ]
    if (found := _find_chance(scores, modality)) is not None:
        sentences.append(_describe_chance(*found))
    return sentences


def _name_split(split: str) -> str:
    """Name a split in a sentence.

    Examples
    --------
    >>> _name_split("speaker, partner left out")
    'leave-one-speaker-out (partner left out)'
    """
    if "leaking" in split:
        return split
    group, _, besides = split.partition(", ")
    return f"leave-one-{group}-out" + (f" ({besides})" if besides else "")


def _find_parts(
    scores: Sequence[PremiumScore], premium: PremiumScore
) -> tuple[PremiumScore, PremiumScore]:
    """Find the difference on real rows and that on permuted rows."""
    name = premium.quantity.replace("premium", "difference")
    real, permuted = (
        _find(scores, premium.modality, f"{name}{suffix}") for suffix in ("", ", rows permuted")
    )
    return real, permuted


def _find(scores: Sequence[PremiumScore], modality: str, quantity: str) -> PremiumScore:
    """Find the pooled number of a quantity that a modality has once."""
    wanted = (modality, quantity, "")
    return next(s for s in scores if (s.modality, s.quantity, s.group) == wanted)


def _find_chance(
    scores: Sequence[PremiumScore], modality: str
) -> tuple[PremiumScore, PremiumScore] | None:
    """Find the level of chance and the score that it is compared with, where measured."""
    if not any(s.modality == modality and s.quantity == "chance" for s in scores):
        return None
    return _find(scores, modality, "chance"), _find(scores, modality, "score, first seed")


def _describe_premium(premium: PremiumScore, real: PremiumScore, permuted: PremiumScore) -> str:
    metric = METRICS[premium.metric]
    assert premium.p_adjusted is not None
    parts = (
        f"The scores differ by {real.value:+.3f}, and by {permuted.value:+.3f} on permuted "
        "rows, which hold no information."
    )
    lenient, strict = _name_split(premium.split), _name_split(premium.against)
    found = f"{_points(premium)}, adjusted p = {format_p(premium.p_adjusted)}"
    if premium.p_adjusted > ALPHA:
        return (
            f"{premium.modality}: no {premium.quantity} was shown in {metric.title} between "
            f"{lenient} and {strict} ({found}). {parts}"
        )
    better, worse = (
        ("higher", "lower") if metric.direction == "maximize" else ("better", "worse")
    )
    verdict = better if premium.value > 0 else worse
    return (
        f"{premium.modality}: {lenient} scores {verdict} than {strict} in "
        f"{metric.title} ({premium.quantity} {found}). Its training rows hold "
        f"{_IN_TRAINING[premium.quantity]}. {parts}"
    )


def _describe_chance(chance: PremiumScore, real: PremiumScore) -> str:
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

    Parameters
    ----------
    scores : sequence of PremiumScore
        Of all modalities.
    gaps : sequence of str
        What the data did not allow, in sentences.
    generated : bool
        Whether the recordings were made by this software.
    probes : sequence of ProbeScore
        Linear probes of label, people and content, where they were measured.
    projected : mapping of str to Projection
        Modalities whose projections were drawn.

    Returns
    -------
    str
        The same text for the same numbers.
    """
    modalities = list(dict.fromkeys(score.modality for score in scores))
    sentences = {modality: describe_modality(scores, modality) for modality in modalities}
    premiums = [each for modality in modalities for each in _find_premiums(scores, modality)]
    parts = [
        "# What a split that leaks would have added",
        "> **Generated data.** These recordings were made by this software with a planted "
        "signal. The numbers say nothing about people."
        if generated
        else "",
        _INTRODUCTION,
        "\n".join(f"- {_escape(each)}" for own in sentences.values() for each in own),
        "\n".join(f"- {_escape(gap)}" for gap in gaps),
        "## Premiums",
        _premium_table(scores, premiums),
        "## Scores",
        _score_table(scores),
        _NOTE.format(
            n_seeds=N_PREMIUM_SEEDS,
            n_draws=N_ROW_DRAWS,
            content=_CONTENT if any(p.quantity == "content premium" for p in premiums) else "",
        ),
        *_chance_section(scores, modalities),
        *_probe_section(probes, projected or {}),
        "\n".join(
            f"![{_escape(' '.join(own))}](premium-{modality}.svg)"
            for modality, own in sentences.items()
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _premium_table(scores: Sequence[PremiumScore], premiums: Sequence[PremiumScore]) -> str:
    rows = []
    for each in premiums:
        real, permuted = _find_parts(scores, each)
        names = [
            each.modality,
            each.quantity.removesuffix(" premium"),
            each.split,
            each.against,
        ]
        parts = [f"{real.value:+.3f}", f"{permuted.value:+.3f}", _points(each)]
        rows.append([*names, *parts, format_p(each.p), format_p(each.p_adjusted)])
    names = ["modality", "premium of", "split", "minus", "difference", "rows permuted"]
    return _table([*names, "premium", "p", "p adjusted"], rows)


def _score_table(scores: Sequence[PremiumScore]) -> str:
    pooled = {(s.modality, s.split, s.quantity): s for s in scores if not s.group}
    rows = []
    for s in pooled.values():
        if s.quantity == "score":
            permuted = pooled[s.modality, s.split, "score, rows permuted"]
            assert s.sd is not None
            rows.append(
                [
                    s.modality,
                    s.split,
                    score_cell(s.value, s.low, s.high).text,
                    format_number(s.sd),
                    format_number(permuted.value),
                    str(s.n_utterances),
                ]
            )
    title = METRICS[scores[0].metric].title
    return _table(
        ["modality", "split", title, "sd over seeds", "rows permuted", "utterances"], rows
    )


def _chance_section(scores: Sequence[PremiumScore], modalities: Sequence[str]) -> list[str]:
    found = [pair for name in modalities if (pair := _find_chance(scores, name)) is not None]
    if not found:
        return []
    rows = [
        [
            chance.modality,
            chance.against,
            score_cell(chance.value, chance.low, chance.high).text,
            format_number(real.value),
            format_p(chance.p),
            str(chance.n_repeats),
        ]
        for chance, real in found
    ]
    header = ["modality", "labels", "chance", "real labels", "p", "permutations"]
    return ["## Chance", _table(header, rows), _CHANCE]


def describe_probe(probe: ProbeScore) -> str:
    """Describe the recall of a probe; "tells" is claimed only where p is at most .05."""
    verdict = "tells" if probe.p <= ALPHA else "was not shown to tell"
    interval = format_interval(probe.low, probe.high)
    return (
        f"{probe.modality}: with each {probe.held_out} held out, a linear probe {verdict} the "
        f"{probe.target} from the features: UAR {format_number(probe.value)}"
        f"{f' {interval}' if interval else ''}, chance {format_number(probe.chance)} (p = "
        f"{format_p(probe.p)}; {probe.n_classes:,} classes, {probe.n_utterances:,} utterances)."
    )


def _probe_section(
    probes: Sequence[ProbeScore], projected: Mapping[str, Projection]
) -> list[str]:
    if not probes:
        return []
    return [
        "## What the features tell",
        "\n".join(f"- {_escape(describe_probe(probe))}" for probe in probes),
        _PROBES.format(n=N_PROBE_DRAWS),
        "\n".join(
            f"![{name}: PCA and LDA fitted on {each.n_fitted} speakers; {len(each.labels):,} "
            f"of {each.n_all:,} utterances of the others](space-{name}.svg)"
            for name, each in projected.items()
        ),
    ]


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
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 6.2), layout="constrained")
        axes = figure.subplots(2, 2)
        for row, (title, points, names) in zip(axes, spaces, strict=True):
            for ax, (kind, codes, labels) in zip(row, sides, strict=True):
                for k in range(len(labels)):
                    color = (
                        _PERSON
                        if k == 10 and codes is person
                        else mpl.colormaps["tab10"](k % 10)
                    )
                    own = points[codes == k]
                    ax.scatter(*own.T, s=6, color=color, alpha=0.7, linewidths=0, label=" ")
                ax.set(xlabel=names[0], ylabel=names[1])
                ax.set_title(f"{title}, by {kind}", fontsize=8)
                ax.spines[["top", "right"]].set_visible(False)
                if points is projection.pca:
                    legend = ax.legend(fontsize=6, frameon=False, markerscale=2)
                    set_texts(legend, [shorten(label) for label in labels])
        title = f"{modality}: axes fitted on {projection.n_fitted} other speakers"
        figure.suptitle(title, fontsize=8, parse_math=False)
    first: Axes = axes[0, 0]
    return first


def plot_premium(scores: Sequence[PremiumScore], modality: str) -> Axes:
    """Draw the pairs of splits: a line per speaker, and points of all utterances together.

    Filled points have intervals over speakers; hollow ones are scores on permuted rows; a grey
    bar is the level of chance.

    Parameters
    ----------
    scores : sequence of PremiumScore
        From :func:`toolkit.validation.measure_premium`.
    modality : str
        The modality to draw.

    Returns
    -------
    Axes
        The axes of a new figure.
    """
    premiums = _find_premiums(scores, modality)
    found, permuted = (
        {
            (score.split, score.group): score
            for score in scores
            if score.modality == modality and score.quantity == quantity
        }
        for quantity in ("score", "score, rows permuted")
    )
    chance = _find_chance(scores, modality)
    ticks, names = [], []
    with mpl.rc_context(_STYLE):
        width = 1.2 + _WIDTH * len(premiums) / 3
        ax: Axes = Figure(figsize=(width, 3.2), layout="constrained").subplots()
        for number, premium in enumerate(premiums):
            left, right = 3.0 * number, 3.0 * number + 1.2
            sides = ((left, premium.split), (right, premium.against))
            speakers = [group for split, group in found if split == premium.split and group]
            for speaker in speakers:
                ax.plot(
                    (left, right),
                    [found[split, speaker].value for _, split in sides],
                    color=_PERSON,
                    linewidth=0.7,
                    marker=".",
                    markersize=3,
                    alpha=0.8,
                )
            for x, split in sides:
                score, leaks = found[split, ""], "leaking" in split
                color, marker = (_LEAKING, "X") if leaks else (_HONEST, "o")
                if score.low is not None and score.high is not None:
                    ends = (score.low, score.high)
                    ax.plot((x, x), ends, color=color, linewidth=2, zorder=3)
                ax.plot(x, score.value, color=color, marker=marker, markersize=7, zorder=4)
                ax.plot(
                    x,
                    permuted[split, ""].value,
                    color=color,
                    marker="D",
                    markersize=5,
                    markerfacecolor="white",
                    zorder=4,
                )
                if chance is not None and split == chance[0].split:
                    place = (x + 0.2, x + 0.2)
                    range_ = np.array([chance[0].low, chance[0].high])
                    ax.plot(place, range_, color=_CHANCE_COLOR, linewidth=4)
                ticks.append(x)
                names.append(_wrap(split))
            ax.annotate(
                f"{premium.quantity}\n{_points(premium)}",
                ((left + right) / 2, 1.02),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                fontsize=7,
            )
        ax.set_xticks(ticks, names, fontsize=7)
        ax.set_xlim(-0.8, ticks[-1] + 0.8)
        ax.set_ylabel(METRICS[premiums[0].metric].title)
        ax.spines[["top", "right"]].set_visible(False)
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


def _points(score: PremiumScore) -> str:
    interval = format_interval(score.low, score.high, sign=True)
    return f"{score.value:+.3f} {interval}".strip()


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Keep a name of the data from being read as markup."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")
