"""Small random-weight hosts of real architectures, and where their feed-forward output is."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from editmem.tiny.world import facts


@dataclass(frozen=True)
class Case:
    """A host to be made.

    Attributes:
        config: class of its configuration.
        site: path of the feed-forward output of the last block.
        options: what the configuration needs beyond the common sizes.
        common: whether it takes the usual names of sizes.
    """

    config: type
    site: str
    options: dict[str, Any]
    common: bool = True


_SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "head_dim": 8,
}  # fmt: skip
_OWN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}

CASES = {
    "llama": Case(tf.LlamaConfig, "model.layers.1.mlp.down_proj", {}),
    "mistral": Case(tf.MistralConfig, "model.layers.1.mlp.down_proj", {}),
    "qwen2": Case(tf.Qwen2Config, "model.layers.1.mlp.down_proj", {}),
    "qwen3": Case(tf.Qwen3Config, "model.layers.1.mlp.down_proj", {}),
    "gemma3": Case(tf.Gemma3TextConfig, "model.layers.1.post_feedforward_layernorm", {"sliding_window": 16}),
    "phi3": Case(tf.Phi3Config, "model.layers.1.mlp.down_proj", {"pad_token_id": 0}),
    "olmo2": Case(tf.Olmo2Config, "model.layers.1.post_feedforward_layernorm", {}),
    "gpt2": Case(tf.GPT2Config, "transformer.h.1.mlp.c_proj", {"n_embd": 32, "n_layer": 2, "n_head": 4}, False),
    "opt": Case(
        tf.OPTConfig, "model.decoder.layers.1.fc2",
        {**_OWN, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 128}, False,
    ),
    "gpt_neox": Case(
        tf.GPTNeoXConfig, "gpt_neox.layers.1.mlp.dense_4h_to_h",
        {**_OWN, "intermediate_size": 64, "max_position_embeddings": 128}, False,
    ),
    "falcon": Case(tf.FalconConfig, "transformer.h.1.mlp.dense_4h_to_h", _OWN, False),
    "bloom": Case(
        tf.BloomConfig, "transformer.h.1.mlp.dense_4h_to_h", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, False
    ),
    "mixtral": Case(tf.MixtralConfig, "model.layers.1.mlp", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": Case(tf.Qwen3MoeConfig, "model.layers.1.mlp", {"num_experts": 4, **_EXPERTS}),
    "deepseek_v3": Case(
        tf.DeepseekV3Config, "model.layers.1.mlp",
        {
            "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16,
            "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
            "num_key_value_heads": 4, **_EXPERTS,
        },
    ),
}  # fmt: skip


def make(name: str, vocab_size: int, dtype: torch.dtype = torch.float32) -> tf.PreTrainedModel:
    """The host of this name, with the same random weights every time."""
    case = CASES[name]
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = case.config(vocab_size=vocab_size, **({**_SIZES, **special} if case.common else special) | case.options)
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # the usual initial weights are too small to tell prompts apart
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval()


def sentencepiece_like():
    """A tokenizer in which the space belongs to the word behind it and digits stand alone."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Digits(True), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Replace("▁", " ")
    texts = [prompt for fact in facts()[:600] for prompt in (*fact.prompts(), f"{fact.answer} 0123456789.,:\n")]
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=800, special_tokens=special))
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
