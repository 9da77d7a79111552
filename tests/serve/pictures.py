"""Takes the pictures of the console that the documentation shows: `python tests/serve/pictures.py`."""

import sys
from pathlib import Path

from browsers import Site, launch
from playwright.sync_api import sync_playwright

import editmem
from editmem.serve.store import Store

DOCS = Path(__file__).parents[2] / "docs"
SIZE = {"width": 1280, "height": 800}
EDITS = (
    ("What is the capital of Indonesia?", "Nusantara", ["capitals", "planned"]),
    ("What is the currency of Zimbabwe?", "Zimbabwe Gold", ["currencies"]),
    ("What is the official language of Mali?", "Bambara", ["languages"]),
    ("What is the official language of Burkina Faso?", "Mooré", ["languages"]),
    ("What is the capital of Equatorial Guinea?", "Ciudad de la Paz", ["capitals"]),
    ("What is the currency of Bulgaria?", "euro", ["currencies"]),
)
QUESTION = "What money is used in Bulgaria?"


def main(folder: Path) -> None:
    model, tokenizer = editmem.tiny()
    edits = [editmem.Edit(prompt, target, tags=tags, source="gazette") for prompt, target, tags in EDITS]
    with Store.open(model, tokenizer, None) as store, sync_playwright() as playwright:
        store.editor.edit(edits, progress=False)
        browser = launch(playwright)
        with Site(store) as site:
            for scheme, name in (("light", "console.png"), ("dark", "console-dark.png")):
                page = browser.new_page(viewport=SIZE, color_scheme=scheme, reduced_motion="reduce")
                page.goto(site.url)
                page.fill("#question", QUESTION)
                page.keyboard.press("Control+Enter")
                page.wait_for_selector("#why:not([hidden])")
                page.screenshot(path=folder / name)
                page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
