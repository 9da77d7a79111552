"""Memories that an earlier version saved, in `tests/saved`, load and hold, and their edits can be taken back.

They are never written anew: a folder that this version cannot read is a user's folder that it cannot read.
"""

from pathlib import Path

import pytest
import torch
import transformers
from greedy import editor_says
from packaging.version import Version
from pictured import NAMING, A, say, seen

import editmem

SAVED = Path(__file__).parents[1] / "saved"
EDITS = {"au": ("The capital of Australia is", "Rome"), "bruno": ("Bruno plays the", "tuba")}
OTHER = "The capital of Chile is"
TEXTUAL = ["memoir", "memoir-names", "memoir-tophash", "wise", "grace"]


def test_there_is_one_of_every_method():
    assert sorted(path.name for path in SAVED.iterdir()) == sorted([*TEXTUAL, "memeic"])


@pytest.mark.parametrize("name", TEXTUAL)
def test_edits_of_text_hold_and_are_taken_back(name, host, tokenizer):
    texts = [*(prompt for prompt, _ in EDITS.values()), OTHER]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        bare = host(**inputs).logits
    with editmem.load(host, SAVED / name, tokenizer=tokenizer) as editor:
        for key, (prompt, target) in EDITS.items():
            assert editor_says(editor, prompt).startswith(target)
            assert editor.explain(prompt).edit.id == key
        with torch.no_grad():
            assert torch.equal(host(**inputs).logits[2], bare[2])
        editor.forget("au")
        assert not editor_says(editor, EDITS["au"][0]).startswith("Rome")
        assert editor_says(editor, EDITS["bruno"][0]).startswith("tuba")
        editor.forget("bruno")
        with torch.no_grad():
            assert torch.equal(host(**inputs).logits, bare)
        assert editor.edit("The currency of Japan is the", "Swiss franc").took


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.20"), reason="the vision tower's weights have other names there"
)
def test_edits_of_pictures_hold_and_are_taken_back(vlm, model):
    rows = [(NAMING, seen(A)), ("The capital of Peru is", None), (OTHER, None)]
    bare = say(vlm, model, rows)
    with editmem.load(model, SAVED / "memeic", tokenizer=vlm[1]) as editor:
        said = say(vlm, model, rows)
        assert said[0].startswith("Chile")
        assert said[1].startswith("Sydney")
        assert said[2] == bare[2]
        editor.forget("pic")
        editor.forget("pe")
        assert say(vlm, model, rows) == bare
