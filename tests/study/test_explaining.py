"""Jobs of an explanation: labels are permuted where the reference can differ."""

from types import SimpleNamespace

import pytest

from toolkit.study.explaining import _count_permutations, make_explain_tasks


@pytest.mark.parametrize(
    ("names", "dimensions", "permutes"),
    [
        (["text__value__0000", "text__value__0001"], {"audio": ["F0"]}, False),
        (["text__value__0000", "text__value__0001"], {"text": ["F0_mean", "loudness"]}, True),
        (["text__value__0000", "text__std__0000"], {}, True),
        (["text__value__0000", "audio__value__0000"], {}, True),
    ],
)
def test_labels_are_permuted_where_there_is_more_than_one_share(names, dimensions, permutes):
    table = SimpleNamespace(names=names, modality="text")
    folder = SimpleNamespace(model_sums=lambda *_: {"fold": "sum"})
    plan = SimpleNamespace(
        config=SimpleNamespace(contributions="sums"),
        folds=[SimpleNamespace(number=0), SimpleNamespace(number=1)],
        folder=folder,
        names=dimensions,
    )

    tasks = make_explain_tasks(plan, {"text": table})

    assert sum(task.fold is not None for task in tasks) == (2 if permutes else 0)


@pytest.mark.parametrize(("n", "expected"), [(60, 5), (4_000, 5), (5_531, 3), (150_000, 2)])
def test_many_utterances_need_fewer_permutations(n, expected):
    assert _count_permutations(n) == expected
