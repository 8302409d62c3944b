"""The notebook of the documentation runs from its first cell to its last."""

import json
from pathlib import Path

import pandas as pd
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "examples" / "first_steps.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_is_kept_without_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    known = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), known)
            assert cell["outputs"] == []
            assert cell["execution_count"] is None

    assert isinstance(known["result"].scores, pd.DataFrame)
    assert (tmp_path / "first-steps" / "report.html").exists()
    shown = "".join(known["result"]._repr_html_())
    for line in cells[4]["source"]:  # the figure is drawn by the last line of its cell
        assert eval(line, known)._repr_svg_()
    assert shown


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
