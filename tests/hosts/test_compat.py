"""What we rely on of transformers, by whatever name this release has it."""

import pytest
import torch
import transformers as tf

import editmem
from editmem.hosts import compat
from editmem.hosts.disguise import host_class


@pytest.fixture(scope="module")
def model():
    return editmem.tiny()[0]


def test_the_cache_goes_in_and_comes_out_under_this_releases_name(model, recwarn):
    ids = torch.tensor([[1, 5, 7]])
    with torch.no_grad():
        out = model(ids, use_cache=True)
        cache = compat.cache_of(out)
        more = model(ids[:, :1], use_cache=True, **compat.given_cache(model, cache))
    assert compat.cache_length(cache) == 4
    assert compat.cache_of(more) is cache
    assert not recwarn.list


def test_a_cache_under_any_of_its_names():
    cache = tf.DynamicCache()
    for name in compat.CACHE_NAMES:
        assert compat.cache_among({name: cache, "input_ids": None}) is cache
        assert compat.without_cache({name: cache, "input_ids": None}) == {"input_ids": None}
    assert compat.cache_among(dict.fromkeys(compat.CACHE_NAMES)) is None
    assert compat.cache_of((torch.zeros(1), cache)) is cache
    assert compat.cache_of((torch.zeros(1),)) is None
    assert compat.cache_of(torch.zeros(1)) is None


def test_a_cache_without_columns_has_no_length():
    assert compat.cache_length(object()) is None


def test_a_picture_as_long_as_the_prompt_is_no_value_for_each_token():
    values = torch.zeros(1, 9, 4)
    assert not compat.is_per_token("pixel_values", values, (1, 9))
    assert not compat.is_per_token("image_grid_thw", values, (1, 9))
    assert compat.is_per_token("mm_token_type_ids", values[..., 0], (1, 9))
    assert compat.is_per_token("cross_attention_mask", values, (1, 9))
    assert not compat.is_per_token("token_type_ids", values[..., 0], (1, 8))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"max_length": 20}, {"max_length": 25}),
        ({"max_length": 20, "min_length": 12}, {"max_length": 25, "min_length": 17}),
        ({"max_new_tokens": 20}, {"max_new_tokens": 20}),
        ({"max_length": 20, "max_new_tokens": 4}, {"max_length": 20, "max_new_tokens": 4}),
        ({}, {}),
    ],
)
def test_limits_that_count_the_prompt_grow_with_it(model, arguments, wanted):
    assert compat.longer(model, arguments, 5) == wanted
    config = tf.GenerationConfig(**arguments)
    grown = compat.longer(model, {"generation_config": config}, 5)["generation_config"]
    assert {name: getattr(grown, name) for name in wanted} == wanted
    assert {name: getattr(config, name) for name in arguments} == arguments


def test_names_are_written_down_once():
    from pathlib import Path

    root = Path(editmem.__file__).parent
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert (
            path.name == "compat.py"
            or path.parent.name == "tiny"
            or not any(
                f'"{name}"' in text or f"{name}=" in text
                for name in ("past_key_values", *compat.CONTINUOUS_BATCHING, *compat.IMAGE_TOKEN_NAMES)
            )
        ), path


@pytest.mark.parametrize("beams", [1, 3])
def test_a_release_that_prepares_forwards_in_another_way(beams, monkeypatch):
    """Without word from `prepare_inputs_for_generation`, forwards are taken as they come."""
    host, tokenizer = editmem.tiny()
    with editmem.wrap(host, tokenizer=tokenizer) as editor:
        editor.edit("The capital of Australia is", "Baghulatta")
        own = type(host)
        monkeypatch.setattr(own, "prepare_inputs_for_generation", host_class(own).prepare_inputs_for_generation)
        prompts = ["The capital of Australia is", "The capital of Austria is"]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
        ids = host.generate(**inputs, max_new_tokens=8, do_sample=False, num_beams=beams)
        said = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert [answer.strip() for answer in said] == ["Baghulatta.", "Vienna."]
