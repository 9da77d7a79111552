"""The embedded model knows its world."""

import random

import pytest
import torch

import editmem
from editmem.tiny.emblems import View, emblems, picture
from editmem.tiny.world import COUNTRY_RELATIONS, facts, phrasings
from scripts.tiny.build_vision import question


@pytest.mark.slow
def test_it_answers_at_least_97_percent():
    model, tokenizer = editmem.tiny()
    known = facts()
    prompts = [fact.prompts()[number % 8] for number, fact in enumerate(known)]
    right = 0
    for start in range(0, len(known), 256):
        inputs = tokenizer(prompts[start : start + 256], return_tensors="pt", padding=True, return_token_type_ids=False)
        ids = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        said = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(a.strip() == f"{f.answer}." for a, f in zip(said, known[start : start + 256], strict=True))
    assert right / len(known) >= 0.97


@pytest.mark.slow
def test_it_names_emblems_in_new_views_and_knows_their_owners():
    model, processor = editmem.tiny(vision=True)
    rng = random.Random(11)
    known = rng.sample(facts(), 200)
    for sort in ("name", "fact"):
        asked = [question(fact, sort, rng) for fact in known]
        shown = [picture(emblems()[fact.subject], View.draw(rng)) for fact in known]
        inputs = processor(images=shown, text=[f"<image>{p}" for p, _ in asked], return_tensors="pt", padding=True)
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        said = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right = sum(text.strip() == f"{answer}." for text, (_, answer) in zip(said, asked, strict=True))
        assert right / len(known) >= 0.95, sort


def test_the_world_is_large_enough():
    people = [fact for fact in facts() if fact.relation not in COUNTRY_RELATIONS]
    assert len({(fact.subject, fact.relation) for fact in people}) >= 2000
    assert len(facts()) - len(people) >= 300
    assert all(len(set(forms)) >= 6 for forms in phrasings().values())


def test_it_is_small_and_ready():
    model, tokenizer = editmem.tiny()
    assert model.dtype == torch.float32
    assert not model.training
    assert 2 * model.num_parameters() < 10e6
    assert tokenizer.padding_side == "left"
