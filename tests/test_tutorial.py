"""The tutorial runs from its first cell to its verdict."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "experiments" / "tutorial.ipynb"


# The notebook libraries warn of their own old habits.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning:(zmq|jupyter_client|traitlets|nbformat).*")
def test_the_tutorial_reaches_a_verdict():
    # An extra: pip install '.[notebook]'.
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(notebook, timeout=1200, resources=where).execute()
    texts = [out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ())]
    (verdict,) = [text for text in texts if "true labels, random labels:" in text]
    assert verdict.strip().endswith("different")
    assert texts[-1].startswith("comparison: ")
