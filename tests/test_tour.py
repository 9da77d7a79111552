"""The notebook of the documentation, run as a reader would; what its cells print is what is saved in it."""

from pathlib import Path

import pytest

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


def printed(notebook):
    """Of each cell of code what it printed; what others say on the error stream is theirs."""
    outputs = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return ["".join(o["text"] for o in cell if o.get("name") == "stdout") for cell in outputs]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Jupyter's own parts
def test_the_tour_runs_and_says_what_it_said(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(TOUR, as_version=4)
    saved = printed(notebook)
    assert len(saved) == 7
    assert sum(map(bool, saved)) == 6
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert printed(notebook) == saved
