"""Pictures of what drives predictions: any name, any number of classes, every modality."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.explain import ShareRecord
from toolkit.explain.shares import OTHERS, LinearRecord, Sample
from toolkit.fusion.inputs import MAX_MODALITIES
from toolkit.report import shap_figures
from toolkit.report.drivers import _family_lead, _feature_figures
from toolkit.report.facts import name_feature
from toolkit.report.figures import render_figure
from toolkit.report.shap_figures import (
    _name_features,
    _plot_bar,
    _plot_beeswarm,
    _plot_heatmap,
    _plot_speakers,
    _plot_waterfall,
)


@pytest.mark.parametrize(
    ("feature", "longest", "expected"),
    [
        ("prosody__mean__0001", 0, "prosody: F0 mean mean"),
        ("prosody__value__0000", 0, "prosody: a name of 30 characters, or so"),
        ("prosody__delta_std__0000", 30, "prosody: a name of … delta_std"),
        ("text__p90__0412", 0, "text, dimension 412 p90"),
        ("text__value__0412", 30, "text, dimension 412"),
        (OTHERS, 8, OTHERS),
    ],
)
def test_a_feature_has_the_name_of_its_dimension_and_its_statistic(feature, longest, expected):
    names = ["a name of 30 characters, or so", "F0 mean"]
    facts = SimpleNamespace(
        data={"modalities": {"prosody": {"dimensions": names}, "text": {"dimensions": []}}}
    )

    assert name_feature(facts, feature, longest) == expected


def test_the_rows_of_a_plot_have_names_that_are_no_formulas():
    names = ["$\\nosuch$", *"abc"]
    facts = SimpleNamespace(data={"modalities": {"text": {"dimensions": names}}})

    ax = _name_features(facts, _plot_beeswarm(make_sample(3), 1, title="early"))

    labels = {label.get_text() for label in ax.get_yticklabels()}
    assert labels == {f"text: {name}" for name in names}
    assert b"nosuch" in render_figure(ax, "svg")


NAMES = (
    "_hidden",
    "$\\nosuch$",
    "<b>&",
    "a very long name of a class",
    "a very long name of a",
)


def make_sample(n_classes, n_rows=30):
    rng = np.random.default_rng(0)
    names = (*(f"text__value__{k:04d}" for k in range(4)), OTHERS)
    values = rng.normal(size=(n_rows, 5)).astype(np.float32)
    values[:, -1] = np.nan
    return Sample(
        names, rng.normal(size=(n_rows, n_classes, 5)), values, np.zeros((n_rows, n_classes))
    )


def test_a_bar_a_class_under_its_own_name():
    ax = _plot_bar(make_sample(5), NAMES, title="$\\nosuch$")

    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [
        "_hidden",
        "$\\nosuch$",
        "<b>&",
        "a very long name …",
        "a very long name …",
    ]
    assert len({bars[0].get_facecolor() for bars in ax.containers}) == 5
    assert b"nosuch" in render_figure(ax, "svg")


def test_more_classes_than_colours_are_drawn_as_their_mean():
    sample = make_sample(12)

    ax = _plot_bar(sample, [f"c{k}" for k in range(12)], title="early")

    lengths = sorted(bar.get_width() for bar in ax.containers[0])
    sizes = np.abs(sample.contributions[:, :, :-1]).mean(axis=(0, 1))
    assert len(ax.containers) == 1
    assert_allclose(lengths, np.sort(sizes))


def test_of_many_utterances_some_are_drawn_and_the_title_gives_their_number(monkeypatch):
    monkeypatch.setattr(shap_figures, "_MOST_DOTS", 5)
    sample = make_sample(3)
    ax = _plot_beeswarm(sample, 1, title="early")

    assert ax.get_title() == f"early\n5 of {len(sample.contributions)} utterances"
    assert max(len(dots.get_offsets()) for dots in ax.collections) == 5


@pytest.mark.parametrize("plot", [_plot_beeswarm, _plot_heatmap])
def test_titles_are_no_formulas(plot):
    assert b"nosuch" in render_figure(plot(make_sample(3), 1, title="$\\nosuch$"), "svg")


def test_a_waterfall_leads_from_the_mean_to_the_utterance_with_one_bar_of_others():
    rng = np.random.default_rng(1)
    names = (*(f"text__value__{k:04d}" for k in range(20)), OTHERS)
    values = np.full((1, 21), np.nan, dtype=np.float32)
    values[0, 3] = 0.5
    sizes = rng.normal(size=(1, 2, 21))
    sizes[0, 1, 3] = 9
    sample = Sample(names, sizes, values, np.array([[0.0, 0.25]]))

    ax = _plot_waterfall(sample, 0, 1, names=("$\\nosuch$",) * 21, title="u")

    bars = [bar.get_width() for bar in ax.patches]
    assert len(bars) == 10
    assert_allclose(bars[0], 9)
    assert_allclose(sum(bars), sizes[0, 1].sum())
    assert_allclose(ax.patches[0].get_x(), 0.25)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == "$\\nosuch$ = 0.5"
    assert labels[-1] == OTHERS
    assert sum("other" in label for label in labels) == 1
    assert b"nosuch" in render_figure(ax, "svg")


ATTRIBUTION = SimpleNamespace(
    system="early",
    linear=[
        LinearRecord("text", "", 0.9, 0.8, 1.0),
        LinearRecord("early", "", 0.5, 0.4, 0.6),
        LinearRecord("early", "audio", 0.25, 0.15, 0.35),
    ],
)


def make_family(part, share, low, permuted):
    return SimpleNamespace(
        modality="audio",
        part=part,
        share=share,
        low=low,
        permuted=permuted,
        permuted_high=None if permuted is None else permuted + 0.05,
    )


def test_families_and_the_linear_part_have_a_sentence_each():
    families = [make_family("level", 0.6, 0.5, 0.4), make_family("change", 0.4, 0.3, 0.3)]

    (paragraph,) = _family_lead(ATTRIBUTION, families)

    assert paragraph.text == (
        "The largest SHAP shares of early come from audio level (0.600) and audio change "
        "(0.400). Larger than under permuted labels (their shares in brackets): audio level "
        "(0.400). The "
        "linear part makes up 0.500 [0.400, 0.600] of the contributions, the trees the rest."
    )


def test_a_share_within_the_permuted_ones_is_not_named_as_larger():
    (paragraph,) = _family_lead(
        SimpleNamespace(system="early", linear=[]), [make_family("level", 0.6, 0.44, 0.4)] * 2
    )

    assert paragraph.text.endswith("No share is shown to be larger than under permuted labels.")


def test_shares_without_intervals_are_not_compared():
    family = make_family("level", 0.6, None, 0.4)

    (paragraph,) = _family_lead(SimpleNamespace(system="early", linear=[]), [family] * 2)

    assert paragraph.text.endswith(
        "Fewer than five speakers: not compared with permuted labels."
    )


def test_every_larger_share_is_listed():
    families = [make_family(f"part{k}", 0.2, 0.19, 0.1) for k in range(5)]

    (paragraph,) = _family_lead(SimpleNamespace(system="early", linear=[]), families)

    larger = paragraph.text.partition("(their shares in brackets): ")[2]
    assert all(f"audio part{k} (0.100)" in larger for k in range(5))


def test_words_of_the_figures_rank_centred_values_as_the_figures_do(facts):
    names = ("text__value__0000", "text__value__0001", OTHERS)
    contributions = np.zeros((3, 4, 3))
    contributions[:, :, 0] = 9  # the same for every class: no difference between classes
    contributions[:, 1, 1] = 1
    sample = Sample(names, contributions, np.zeros((3, 3)), np.zeros((3, 4)))
    attribution = SimpleNamespace(
        system="text",
        samples={"text": sample},
        totals={"text": SimpleNamespace(trained=np.ones((3, 4), dtype=bool))},
    )

    bar, *others = _feature_figures(facts, attribution)

    first, second = (name_feature(facts, name) for name in names[:2])
    assert bar.alt == f"The features with the largest SHAP values: {second}; {first}."
    for figure in others[:4]:
        assert figure.alt.endswith(f"largest on average {second}.")


def test_every_modality_is_drawn_by_speaker(facts):
    modalities = [f"m{k}" for k in range(MAX_MODALITIES)]
    shares = [
        ShareRecord(
            *("early", "modality", name, "", "all", speaker, "", 9),
            *(1 / 8, 0.1, 0.2, None, None, None, 0.5, None, 0.1),
        )
        for name in modalities
        for speaker in ("", *facts.tested_speakers)
    ]
    attribution = SimpleNamespace(system="early", modalities=modalities, shares=shares)

    axes = _plot_speakers(facts, attribution)

    drawn = [line for line in axes.lines if line.get_marker() != "None"]
    assert [line.get_label() for line in drawn] == modalities
    looks = {(line.get_color(), line.get_marker()) for line in drawn}
    assert len(looks) == MAX_MODALITIES


def test_a_single_family_and_trees_alone_have_no_sentence():
    assert _family_lead(SimpleNamespace(system="audio", linear=ATTRIBUTION.linear), []) == []
