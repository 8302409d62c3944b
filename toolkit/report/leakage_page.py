"""The page and the figure of the leakage premium."""

from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.report.document import format_interval, format_number, score_cell
from toolkit.validation import METRICS, PremiumScore

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
}
# Okabe and Ito's vermilion, blue and grey are distinct for colour-blind readers.
_LEAKING, _HONEST, _PERSON = "#d55e00", "#0072b2", "#999999"
_WIDTH: Final = 5.6  # inches: what three pairs need
_ALPHA: Final = 0.05

_INTRODUCTION: Final = (
    "One fixed configuration (LightGBM, not searched) was fitted under splits that differ in "
    "who is on both sides. **The random splits leak**: they test people who were learnt from, "
    "and stand here only to show what that adds. No study of this toolkit can be run "
    "with them."
)
_NOTE: Final = (
    "Scores and premiums are means over {n_seeds} seeds; intervals are 95 %, jackknife over "
    "speakers, and describe new speakers for this configuration. p by exchanging whole "
    "speakers between two splits, adjusted for all premiums of a modality by step-down max-T. "
    "The partner premium compares two splits that learn from as many people: each leaves out "
    "the tested speaker and one more, of another session or the partner. All speakers "
    "stand in `premium.csv`."
)
_MEANINGS: Final = {
    "speaker premium": "knowing the speaker",
    "session premium": "knowing the speaker, the partner and the room",
    "partner premium": "knowing the partner and the room, not the speaker",
}


def find_premiums(scores: Sequence[PremiumScore], modality: str) -> list[PremiumScore]:
    """Pick the pooled premiums of one modality.

    Parameters
    ----------
    scores : sequence of PremiumScore
        Scores and premiums of any modalities.
    modality : str
        The modality of the features.

    Returns
    -------
    list of PremiumScore
        At most three, in their order.
    """
    return [
        score
        for score in scores
        if score.modality == modality and not score.group and score.quantity != "score"
    ]


def describe_premium(premium: PremiumScore) -> str:
    """Say in one sentence what a premium is, no more than its test shows.

    Parameters
    ----------
    premium : PremiumScore
        A pooled one.

    Returns
    -------
    str
        With interval and adjusted p.
    """
    title = METRICS[premium.metric].title
    assert premium.p_adjusted is not None
    tail = f"{_points(premium)}, adjusted p = {_p(premium.p_adjusted)}"
    if premium.p_adjusted > _ALPHA:
        return (
            f"{premium.modality}: no difference in {title} was shown between "
            f"{premium.split} and {premium.against} ({tail})."
        )
    verdict = "above" if premium.value > 0 else "below"
    return (
        f"{premium.modality}: {premium.split} stands {verdict} {premium.against} in {title} "
        f"({tail}): what {_MEANINGS[premium.quantity]} is worth."
    )


def format_premium(
    scores: Sequence[PremiumScore],
    *,
    gaps: Sequence[str],
    generated: bool,
    n_seeds: int,
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
    n_seeds : int
        Seeds that were averaged.

    Returns
    -------
    str
        The same text for the same numbers.
    """
    modalities = list(dict.fromkeys(score.modality for score in scores))
    premiums = [each for modality in modalities for each in find_premiums(scores, modality)]
    title = METRICS[scores[0].metric].title
    parts = [
        "# What a split that leaks would have added",
        "> **Generated data.** These recordings were made by this software with a planted "
        "signal. The numbers say nothing about people."
        if generated
        else "",
        _INTRODUCTION,
        "\n".join(f"- {_escape(describe_premium(premium))}" for premium in premiums),
        "\n".join(f"- {_escape(gap)}" for gap in gaps),
        "## Premiums",
        _table(
            ["modality", "premium", "split", "less", title, "p", "p adjusted"],
            [
                [
                    s.modality,
                    s.quantity,
                    s.split,
                    s.against,
                    _points(s),
                    _p(s.p),
                    _p(s.p_adjusted),
                ]
                for s in premiums
            ],
        ),
        "## Scores",
        _table(
            ["modality", "split", title, "sd over seeds", "utterances"],
            [
                [
                    s.modality,
                    s.split,
                    score_cell(s.value, s.low, s.high).text,
                    format_number(s.sd_seeds),
                    str(s.n_utterances),
                ]
                for s in scores
                if s.quantity == "score" and not s.group
            ],
        ),
        _NOTE.format(n_seeds=n_seeds),
        "\n".join(
            f"![{_escape(' '.join(map(describe_premium, find_premiums(scores, modality))))}]"
            f"(premium-{modality}.svg)"
            for modality in modalities
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plot_premium(scores: Sequence[PremiumScore], modality: str) -> Axes:
    """Draw the pairs of splits: a line per speaker, points and intervals of all together.

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
    premiums = find_premiums(scores, modality)
    found = {
        (score.split, score.group): score
        for score in scores
        if score.modality == modality and score.quantity == "score"
    }
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
        ax.set_xlabel(
            f"{modality}: thin lines are speakers, points all utterances, "
            "bars 95 % over speakers",
            fontsize=7,
        )
    return ax


def _wrap(split: str) -> str:
    """Set a split's name on short lines."""
    name, _, rest = split.replace(" (leaking)", ", leaking").partition(", ")
    first = name.replace("-", ", ") + (" folds" if "leaking" in rest else " out")
    return first + (f"\n{rest.upper() if rest == 'leaking' else rest}" if rest else "")


def _points(score: PremiumScore) -> str:
    interval = format_interval(score.low, score.high, sign=True)
    return f"{score.value:+.3f} {interval}".strip()


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}".lstrip("0") if value < 1 else "1"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Keep a name of the data from being read as markup."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")
