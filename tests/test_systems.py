"""The names of systems: every part is found again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data.feature_files import _MODALITY_NAME
from toolkit.systems import (
    RESERVED,
    System,
    early_name,
    list_subsets,
    logistic_name,
    proper_subsets,
    variant_name,
)

MODALITIES = st.from_regex(_MODALITY_NAME, fullmatch=True).filter(lambda n: n not in RESERVED)
VARIANTS = st.sampled_from(["", "logistic", "permuted", "offset-f1", "offset-uar", "seed-12"])


@given(MODALITIES, VARIANTS)
def test_a_modality_and_its_variants_are_parsed_as_they_were_named(modality, variant):
    system = System(modality, (), variant)

    assert System.parse(system.name) == system


@given(st.lists(MODALITIES, min_size=2, max_size=4, unique=True), VARIANTS)
def test_an_early_fusion_and_its_variants_are_parsed_as_they_were_named(subset, variant):
    system = System("early", tuple(subset), variant)

    assert System.parse(system.name) == system


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("best-single", System("best-single")),
        ("best-single-offset-f1", System("best-single", (), "offset-f1")),
        ("log-pool", System("log-pool")),
        ("log-pool-offset-uar", System("log-pool", (), "offset-uar")),
        ("majority", System("majority")),
        ("early-logistic", System("early", (), "logistic")),
        ("early-text-audio", System("early", ("text", "audio"))),
        ("early-text-audio-offset-uar", System("early", ("text", "audio"), "offset-uar")),
    ],
)
def test_names_that_look_alike_are_told_apart(name, expected):
    assert System.parse(name) == expected


@pytest.mark.parametrize("name", ["", "-", "text-", "text-audio", "vote-seed-x", "early--text"])
def test_what_is_no_name_of_a_system_is_refused(name):
    with pytest.raises(ValueError, match="is not the name of a system"):
        System.parse(name)


def test_only_an_early_fusion_of_some_modalities_is_a_subset():
    found = {
        name: System.parse(name).is_subset
        for name in ("early", "early-a-b", "early-logistic", "early-a-b-offset-f1", "a")
    }

    assert [name for name, is_subset in found.items() if is_subset] == ["early-a-b"]


def test_a_variant_takes_the_place_of_another():
    assert variant_name("soft", "offset-uar") == "soft-offset-uar"
    assert variant_name("soft-offset-uar", "") == "soft"


def test_every_subset_of_three_modalities_has_a_name_of_its_own():
    names = [early_name(some, ["v", "a", "t"]) for some in list_subsets(["v", "a", "t"])]

    assert names == ["v", "a", "t", "early-v-a", "early-v-t", "early-a-t", "early"]
    assert proper_subsets(["v", "a", "t"]) == [("v", "a"), ("v", "t"), ("a", "t")]
    assert logistic_name("early") == "early-logistic"
