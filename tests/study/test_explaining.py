"""Jobs of an explanation: labels are permuted where the reference can differ."""

from types import SimpleNamespace

import pytest

from toolkit.study.explaining import make_explain_tasks


@pytest.mark.parametrize(
    ("names", "n_shares"),
    [
        (["text__value__0000", "text__value__0001"], 1),
        (["text__value__0000", "text__std__0000"], 2),
        (["text__value__0000", "audio__value__0000"], 2),
    ],
)
def test_labels_are_permuted_where_there_is_more_than_one_share(names, n_shares):
    table = SimpleNamespace(names=names)
    folder = SimpleNamespace(model_sums=lambda *_: {"fold": "sum"})
    plan = SimpleNamespace(
        config=SimpleNamespace(contributions="sums"),
        folds=[SimpleNamespace(number=0), SimpleNamespace(number=1)],
        folder=folder,
    )

    tasks = make_explain_tasks(plan, {"text": table})

    assert sum(task.fold is not None for task in tasks) == (2 if n_shares > 1 else 0)
