"""Premiums in words: no split is called better or worse against its own scores."""

import pytest

from toolkit.report.leakage_page import describe_premiums, format_premium
from toolkit.validation.fixed import PremiumScore


def make_scores(real, permuted, *, metric="f1_micro", p=0.01, name="speaker"):
    """Pooled numbers of a premium: the gains of the lenient split, and their difference."""
    ends = {"split": "random-10 (leaking)", "against": "speaker"}
    values = {
        f"{name} difference": real,
        f"{name} difference, rows permuted": permuted,
        f"{name} premium": real - permuted,
    }
    return [
        PremiumScore(
            modality="text",
            metric=metric,
            quantity=quantity,
            **ends,
            value=value,
            p_adjusted=p if quantity.endswith("premium") else None,
            n_utterances=100,
        )
        for quantity, value in values.items()
    ]


@pytest.mark.parametrize("metric", ["f1_micro", "log_loss"])
@pytest.mark.parametrize(
    ("real", "permuted", "compared"),
    [
        (0.017, 0.141, "0.124 smaller"),
        (0.2, 0.05, "0.150 larger"),
        (-0.01, -0.05, "0.040 larger"),
        (-0.05, 0.01, "0.060 smaller"),
    ],
)
def test_a_premium_is_described_as_a_difference_of_two_gains(real, permuted, compared, metric):
    [shown] = describe_premiums(make_scores(real, permuted, metric=metric))
    [not_shown] = describe_premiums(make_scores(real, permuted, metric=metric, p=0.051))

    title = {"f1_micro": "F1-micro", "log_loss": "Log-loss"}[metric]
    both = (
        f"text: the gain of random-10 (leaking) over leave-one-speaker-out in {title} is "
        f"{real:+.3f}, and {permuted:+.3f} on permuted rows, which hold no information."
    )
    premium = f"{real - permuted:+.3f}"
    assert shown == (
        f"{both} The gain is {compared} than on permuted rows (speaker premium {premium}, "
        "adjusted p = .0100). The training rows of random-10 (leaking) hold other utterances "
        "of the tested speaker."
    )
    assert not_shown == f"{both} No speaker premium was shown ({premium}, adjusted p = .0510)."


@pytest.mark.parametrize("name", ["speaker", "partner", "content"])
def test_the_page_explains_the_premiums_that_were_measured(name):
    page = format_premium(make_scores(0.2, 0.1, name=name), gaps=(), generated=False)

    assert "This correction was checked on features without signal." in page
    assert "can hide a premium or invent one." in page
    for each in ("partner", "content"):
        assert (f"The {each} premium compares two splits" in page) == (each == name)
