"""Every study of the gallery runs where its data are, in its quickest form."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

from toolkit.study.options import load_config
from toolkit.study.runner import run_study

ROOT = Path(__file__).parents[2]
STUDIES = sorted(ROOT.glob("studies/*/study.toml"))
#: Copies of data sets that may stand beside the repository; never part of it.
BESIDE = ROOT.parent / "shared" / "data"
#: As little work as shows that the study's own options and data go together.
QUICKEST = {
    "quick": True,
    "trials": 1,
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "minimal",
    "fusion": ("early", "vote"),
    "contributions": "none",
    "workers": 1,
}


def find_data(study, corpus, tmp_path_factory):
    """Give the study's dataset.csv, or say why it is not here."""
    name = study.parent.name
    said = tomllib.loads(study.read_text(encoding="utf-8"))
    if "data" not in said:
        return corpus / "dataset.csv"
    for source in (study.parent / said["data"], BESIDE / name / "dataset.csv"):
        if source.exists():
            return source
    script = study.parent / "make_data.py"
    if not script.exists():
        pytest.skip(
            f"the data of {name} are not here: studies/{name}/README.md says whose they are"
        )
    if importlib.util.find_spec("seglearn") is None:
        pytest.skip("seglearn, which holds the data of watch, is not installed")
    spec = importlib.util.spec_from_file_location(f"make_{name}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FOLDER", folder)
        module.main()
    return folder / "dataset.csv"


@pytest.mark.nightly
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.parent.name)
def test_a_study_of_the_gallery_runs(study, corpus, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    data = find_data(study, corpus, tmp_path_factory)
    # Few folds where the study leaves one speaker out; its own split where it has one.
    split = load_config(study, {}).outer == "split"
    outer = {} if split else {"outer": "3"}

    result = run_study(
        load_config(study, QUICKEST | outer | {"data": data, "out": tmp_path / "out"})
    )

    assert not result.unfinished
    assert {"majority", "early", "vote"} <= set(result.systems)
    assert (result.folder / "MODEL_CARD.md").exists()


def test_every_study_says_what_it_asks_and_how_it_is_run():
    assert len(STUDIES) >= 5
    gallery = (ROOT / "studies" / "README.md").read_text(encoding="utf-8")
    for study in STUDIES:
        text = (study.parent / "README.md").read_text(encoding="utf-8")
        name = study.parent.name
        assert "**Question.**" in text, name
        assert f"python -m toolkit.study studies/{name}/study.toml" in text, name
        assert f"[{name}]({name})" in gallery, name
        assert load_config(study, {}).name == name
