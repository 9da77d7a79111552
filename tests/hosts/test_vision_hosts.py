"""Image-text models are hosts too: the memory sits on their language model, whatever stands beside it."""

import pytest
import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from text_hosts import make
from torch import nn
from vision_hosts import DEPTH, VISION_HOSTS, WIDTH, blocks_path, make_vision, picture, with_image

import editmem
from editmem.errors import HostError
from editmem.hosts.injection import Slots
from editmem.hosts.structure import Host
from editmem.methods.memeic.spec import MemeicSpec

pytestmark = pytest.mark.slow

PROMPT, TARGET = "The capital of Australia is", "Sydney"
OTHER = "Bruno plays the violin every day and then, he said,"
# Random weights change little with each step, so that steps are larger and adapters everywhere.
SPEC = MemeicSpec(learning_rate=3e-2, steps=200, start=0.0, renderings=False)
HIDDEN_FROM_TEXT = {"mllama": [1]}  # blocks of cross-attention

every_host = pytest.mark.parametrize("name", VISION_HOSTS)


def see(name, processor, *texts, side="left"):
    """What the host takes for texts with a picture each."""
    processor.tokenizer.padding_side = side
    pictures = [[picture(seed)] for seed in range(len(texts))]
    texts = [with_image(name, text) for text in texts]
    inputs = processor(images=pictures, text=texts, return_tensors="pt", padding=True)
    inputs.pop("labels", None)  # PaliGemma's has them, all of them to be ignored
    return inputs


def read(processor, text):
    return processor.tokenizer(text, return_tensors="pt", return_token_type_ids=False)


def say(model, inputs, processor, tokens=6):
    out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return processor.tokenizer.batch_decode(out[:, -tokens:])


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def state_of(model):
    return {
        "weights": {key: weight.clone() for key, weight in model.state_dict().items()},
        "classes": [type(module) for module in model.modules()],
        "attributes": [sorted(module.__dict__) for module in model.modules()],
    }


@every_host
def test_it_sees(name):
    model, processor = make_vision(name)
    inputs = see(name, processor, PROMPT)
    other = processor(images=[picture(7)], text=[with_image(name, PROMPT)], return_tensors="pt", padding=True)
    assert (logits(model, inputs) - logits(model, {**inputs, "pixel_values": other["pixel_values"]})).abs().max() > 0.1
    assert len(say(model, see(name, processor, PROMPT, OTHER), processor)) == 2
    content = [{"type": "image", "image": picture()}, {"type": "text", "text": PROMPT}]
    chat = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip
    assert torch.isfinite(logits(model, chat)).all()
    assert "pixel_values" in chat


@every_host
def test_the_host_is_the_language_model(name):
    model, processor = make_vision(name)
    host = Host(model)
    assert host.blocks_path == blocks_path(name)
    assert (host.hidden_size, host.max_length) == (WIDTH, 192)
    assert host.model.get_input_embeddings() in host.decoder.modules()
    assert not any(isinstance(module, nn.Conv2d | nn.Conv3d) for module in host.decoder.modules())
    assert sum(isinstance(module, nn.ModuleList) and len(module) == DEPTH for module in model.modules()) > 1
    for layer in (0, -1, 1.0):
        assert host.site(layer).path.startswith(f"{host.site(layer).block_path}.")
        assert host.site(layer).block_path.startswith(f"{host.blocks_path}.")
    passed = []
    for index, block in enumerate(host.blocks):
        block.register_forward_hook(lambda *_, index=index: passed.append(index))
    logits(host.model, read(processor, PROMPT))
    assert passed == [index for index in range(DEPTH) if index not in HIDDEN_FROM_TEXT.get(name, [])]


@every_host
def test_linear_maps_of_the_language_model(name):
    host = Host(make_vision(name)[0])
    up, down, prefix = ("fc1", "fc2", "") if name == "blip-2" else ("up_proj", "down_proj", "mlp.")
    found = [(site.path, site.block, site.in_features, site.out_features) for site in host.feed_forward_linears()]
    assert found == [
        (f"{host.blocks_path}.{block}.{prefix}{kind}", block, *widths)
        for block in range(DEPTH)
        for kind, widths in ((up, (WIDTH, 2 * WIDTH)), (down, (2 * WIDTH, WIDTH)))
    ]
    seeing = HIDDEN_FROM_TEXT.get(name, [])
    sites = host.query_key_linears()
    assert sorted({site.path for site in sites}) == [
        f"{host.blocks_path}.{block}.self_attn.{kind}_proj"
        for block in range(DEPTH)
        for kind in "kq"
        if block not in seeing
    ]
    assert [site.block for site in sites] == [b for b in range(DEPTH) for _ in "kq" if b not in seeing]
    for site in [*host.feed_forward_linears(), *sites]:
        assert host.module(site.path).weight.shape == (site.out_features, site.in_features)
        assert site.path.startswith(f"{site.block_path}.")


@every_host
def test_an_edit_in_text(name):
    model, processor = make_vision(name)
    inputs = see(name, processor, OTHER)
    bare, before = logits(model, inputs), state_of(model)
    editor = editmem.wrap(model, "memoir", tokenizer=processor)
    assert torch.equal(logits(model, inputs), bare)
    record = editor.edit(PROMPT, TARGET)
    assert record.took, record
    assert say(Host(model).model, read(processor, PROMPT), processor)[0].strip().startswith(TARGET)
    assert torch.equal(logits(model, inputs), bare)
    assert editmem.unwrap(model) is model
    after = state_of(model)
    assert all(after[key] == before[key] for key in ("classes", "attributes"))
    assert list(after["weights"]) == list(before["weights"])
    assert all(torch.equal(weight, after["weights"][key]) for key, weight in before["weights"].items())


@every_host
def test_padding_on_the_right_beside_pictures(name):
    model, processor = make_vision(name)
    editor = editmem.wrap(model, "memoir", tokenizer=processor)
    editor.edit(PROMPT, TARGET)
    said = [say(model, see(name, processor, PROMPT, OTHER, side=side), processor) for side in ("left", "right")]
    assert said[0] == said[1]


@every_host
def test_the_body_called_directly_knows_its_tokens(name):
    model, processor = make_vision(name)
    host, slots, seen = Host(model), Slots(), []

    class Spy:
        window = 1

        def __call__(self, x, out, call):
            seen.append(call.tokens)
            return out

        def __len__(self):
            return 1

        def to(self, device):
            return self

    site = host.site(-1)
    slots.attach_site(site.path, host.module(site.path), Spy())
    slots.attach_entries(host.model, host.decoder)
    inputs = read(processor, PROMPT) if host.model is not model else see(name, processor, PROMPT)
    with torch.no_grad():
        host.model.base_model(**inputs)
        host.decoder(inputs_embeds=host.model.get_input_embeddings()(inputs["input_ids"]))
    slots.detach()
    assert len(seen) == 2
    assert all(torch.equal(tokens, inputs["input_ids"]) for tokens in seen)


def test_a_block_that_text_passes_by():
    host = Host(make_vision("mllama")[0])
    with pytest.raises(HostError, match="cross-attention alone"):
        host.site(1)
    assert host.site(1, "model.language_model.layers.1.mlp.down_proj").block == 1


def test_an_encoder_decoder_inside():
    config = make_vision("blip-2")[0].config
    text = {"d_model": 16, "d_ff": 16, "d_kv": 4, "num_layers": 1, "num_heads": 2, "vocab_size": 64}
    config = tf.Blip2Config(
        text_config={"model_type": "t5", "decoder_start_token_id": 0, **text},
        vision_config=config.vision_config.to_dict(), qformer_config=config.qformer_config.to_dict(),
    )  # fmt: skip
    with pytest.raises(HostError, match="encoder-decoder"):
        Host(tf.Blip2ForConditionalGeneration(config))


def test_linear_maps_below_peft():
    plain = Host(make_vision("llava")[0])
    targets = r".*language_model.*(down|up|q|k)_proj"
    adapted = Host(get_peft_model(make_vision("llava")[0], LoraConfig(r=4, target_modules=targets)))
    assert adapted.feed_forward_linears() == plain.feed_forward_linears()
    assert adapted.query_key_linears() == plain.query_key_linears()


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("llama", ["mlp.up_proj", "mlp.down_proj"]),
        ("gemma3", ["mlp.up_proj", "mlp.down_proj"]),
        ("gpt2", ["mlp.c_fc", "mlp.c_proj"]),
        ("opt", ["fc1", "fc2"]),
        ("phi3", ["mlp.gate_up_proj", "mlp.down_proj"]),
        ("bloom", ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]),
    ],
)
def test_feed_forward_maps_of_text_hosts(name, names):
    sites = Host(make(name, 64)).feed_forward_linears()
    assert [site.path.removeprefix(f"{site.block_path}.") for site in sites] == 2 * names
    assert [site.block for site in sites] == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "falcon", "bloom", "phi3", "deepseek_v3"])
def test_fused_query_and_key(name):
    with pytest.raises(HostError, match=r"block 0 of .* no separate query and key projections"):
        Host(make(name, 64)).query_key_linears()


@pytest.mark.parametrize(("name", "block"), [("mixtral", 0), ("qwen3_moe", 0), ("deepseek_v3", 1)])
def test_experts_have_no_feed_forward_maps(name, block):
    with pytest.raises(HostError, match=rf"block {block} of .* mixture of experts in 'mlp'"):
        Host(make(name, 64)).feed_forward_linears()


def test_a_missing_projection_is_named():
    model = make("llama", 64)
    model.model.layers[1].mlp.up_proj = nn.Identity()
    with pytest.raises(HostError, match=r"block 1 of .* no up projection"):
        Host(model).feed_forward_linears()


@pytest.mark.usefixtures("calibrated_by_little")
@pytest.mark.parametrize("name", [name for name in VISION_HOSTS if "blip" not in name])
def test_edits_of_pictures_and_of_facts(name):
    model, processor = make_vision(name)
    with editmem.wrap(model, SPEC, tokenizer=processor) as editor:
        if name == "mllama":  # its pictures are not among the tokens of prompts
            with pytest.raises(editmem.EditMemError, match="no trace of pictures"):
                editor.edit("What is this?", "Kenya", image=picture(0))
        else:
            editor.edit("What is this?", "Kenya", image=picture(0))
            assert "Kenya" in say(model, see(name, processor, "What is this?"), processor)[0]
        record = editor.edit(PROMPT, TARGET)
        # Unless random weights go on with names after any end.
        assert record.took or "goes on after the answer" in record.notes[0]
        assert TARGET in say(model, read(processor, PROMPT), processor)[0]


@pytest.mark.parametrize("name", ["blip-2", "instructblip"])
def test_hosts_that_are_called_with_embeddings(name):
    model, processor = make_vision(name)
    with pytest.raises(HostError, match="called with embeddings"):
        editmem.wrap(model, "memeic", tokenizer=processor)
