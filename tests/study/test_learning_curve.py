"""The learning curve of a study: kept once, scored again from its predictions."""

import shutil

import numpy as np
import pytest

from toolkit.files import FolderError, read_array
from toolkit.study.config import StudyConfig
from toolkit.study.folder import CURVE, StudyFolder
from toolkit.study.inventory import Inventory
from toolkit.study.plan import plan_study
from toolkit.study.results import _score_curve
from toolkit.study.runner import _fit_curve, _has_curve, _set_up


def make_plan(corpus, folder, modality=("audio", "text")):
    config = StudyConfig(
        data=corpus / "dataset.csv",
        modality=modality,
        outer="4",
        quick=True,
        statistics="minimal",
        out=folder,
        learning_curve=True,
    )
    return plan_study(config)


@pytest.fixture(scope="module")
def plan(corpus, tmp_path_factory):
    """A study that is set up, with a learning curve and without any unit."""
    plan = make_plan(corpus, tmp_path_factory.mktemp("curve") / "study")
    Inventory(plan.folder.path).claim()
    tables, _ = _set_up(plan, {name: plan.pool(name) for name in plan.manifest.modalities})
    assert not _has_curve(plan)
    _fit_curve(plan, tables)
    return plan


def test_the_scores_of_the_curve_are_those_of_its_predictions(plan):
    rows = np.concatenate([fold.test for fold in plan.folds])
    labels = plan.manifest.labels[rows]

    curve = _score_curve(plan.folder.read_study())

    fewest = min(len(set(plan.manifest.speakers[fold.train].tolist())) for fold in plan.folds)
    assert (min(curve), max(curve)) == (2, fewest)
    with plan.folder.open_part(plan.folder.path / CURVE) as kept:
        for size, score in curve.items():
            accuracy = (read_array(kept / f"{size}.npy").argmax(axis=1) == labels).mean()
            assert score.value == pytest.approx(accuracy)
            assert score.low < score.value < score.high
            assert score.n == len(rows)


def test_a_curve_is_fitted_once_and_again_for_other_modalities(plan, corpus):
    other = make_plan(corpus, plan.folder.path, modality=("text",))

    assert _has_curve(plan)
    assert not _has_curve(other)


def test_a_damaged_curve_is_named(plan, tmp_path):
    copy = StudyFolder(shutil.copytree(plan.folder.path, tmp_path / "copy"))
    (copy.path / CURVE).write_bytes(b"no archive")

    with pytest.raises(FolderError, match=r"learning_curve\.zip is damaged"):
        _score_curve(copy.read_study())


def test_a_study_without_a_curve_has_none(corpus, tmp_path):
    plan = make_plan(corpus, tmp_path / "study", modality=("text",))
    _set_up(plan, {"text": plan.pool("text")})

    assert _score_curve(plan.folder.read_study()) == {}
