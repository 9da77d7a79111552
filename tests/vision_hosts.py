"""Small random-weight image-text hosts with real processors.

Vision tower, Q-Former and language model have the same width and number of blocks, so that neither tells them apart.
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from PIL import Image

import editmem

try:
    from transformers.video_processing_utils import VideoProcessorMixin
except ImportError:  # older releases have video processors with torchvision alone
    VideoProcessorMixin = object

DEPTH, WIDTH, SIZE, PATCH = 3, 64, 32, 8
_QUERIES = 4

_TEMPLATE = """{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}\
{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""

_TEXT = {
    "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 192, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_OPT = {"ffn_dim": 2 * WIDTH, "word_embed_proj_dim": WIDTH, "tie_word_embeddings": False}
_VISION = {
    "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4,
    "image_size": SIZE, "patch_size": PATCH,
}  # fmt: skip
_QWEN_VISION = {"depth": DEPTH, "num_heads": 4, "patch_size": PATCH}
_QFORMER = {
    "vocab_size": 64, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": DEPTH,
    "num_attention_heads": 4, "max_position_embeddings": 192,
}  # fmt: skip
_QWEN_TOKENS = {
    "image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}  # fmt: skip
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


class NoVideo(VideoProcessorMixin):
    """Stands where a processor wants a video processor: the real ones need torchvision."""


def _without_videos(cls: type) -> type:
    """The processor class, willing to take `NoVideo`: without torchvision it cannot look up what it checks against."""
    return type(cls.__name__, (cls,), {"check_argument_for_proper_class": lambda self, name, argument: None})


@dataclass(frozen=True)
class Case:
    """An image-text host to be made.

    Attributes:
        tokens: special tokens by the names that the processor knows them by.
        image: what stands for the picture in a prompt; nothing where the processor puts it there itself.
        config: from the tokenizer to the configuration.
        processor: from the tokenizer to the processor.
        path: where the blocks of the language model are, in the model that the memory sits on.
    """

    tokens: dict[str, str]
    image: str
    config: Callable[[Any], tf.PreTrainedConfig]
    processor: Callable[[Any], Any]
    path: str = "model.language_model.layers"


def _pil(name: str) -> type:
    """The image processor that needs no torchvision; in older releases the one that is not called fast."""
    return getattr(tf, f"{name}Pil", None) or getattr(tf, name)


def _square(cls: type, **options: Any) -> Any:
    return cls(size={"height": SIZE, "width": SIZE}, **options)


def _text(cls: type, tokenizer: Any, **options: Any) -> tf.PreTrainedConfig:
    return cls(**{"vocab_size": len(tokenizer), **_TEXT, **options})


def _token_ids(tokenizer: Any) -> dict[str, int]:
    return {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in _QWEN_TOKENS.items()}


def _llava(tokenizer: Any) -> tf.PreTrainedConfig:
    return tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**_VISION), text_config=_text(tf.LlamaConfig, tokenizer),
        image_token_index=tokenizer.image_token_id, vision_feature_layer=-2,
    )  # fmt: skip


def _llava_processor(tokenizer: Any) -> Any:
    images = _pil("CLIPImageProcessor")(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return tf.LlavaProcessor(images, tokenizer, PATCH, "default", num_additional_image_tokens=1)


_PINPOINTS = [[SIZE, SIZE], [SIZE, 2 * SIZE], [2 * SIZE, SIZE]]


def _llava_onevision(tokenizer: Any) -> tf.PreTrainedConfig:
    return tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(**_VISION, vision_use_head=False),
        text_config=_text(tf.Qwen2Config, tokenizer), image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id, image_grid_pinpoints=_PINPOINTS,
    )  # fmt: skip


def _llava_onevision_processor(tokenizer: Any) -> Any:
    images = _square(_pil("LlavaOnevisionImageProcessor"), image_grid_pinpoints=_PINPOINTS)
    cls = _without_videos(tf.LlavaOnevisionProcessor)
    return cls(images, tokenizer, NoVideo(), (SIZE // PATCH) ** 2, "full")


def _qwen2_vl(tokenizer: Any) -> tf.PreTrainedConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    return tf.Qwen2VLConfig(
        vision_config={**_QWEN_VISION, "embed_dim": WIDTH, "hidden_size": WIDTH},
        text_config={"vocab_size": len(tokenizer), **_TEXT, "rope_parameters": rope}, **_token_ids(tokenizer),
    )  # fmt: skip


def _qwen2_5_vl(tokenizer: Any) -> tf.PreTrainedConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    vision = {
        **_QWEN_VISION, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "out_hidden_size": WIDTH,
        "window_size": 4 * PATCH, "fullatt_block_indexes": [1],
    }  # fmt: skip
    return tf.Qwen2_5_VLConfig(
        vision_config=vision, text_config={"vocab_size": len(tokenizer), **_TEXT, "rope_parameters": rope},
        **_token_ids(tokenizer),
    )  # fmt: skip


def _qwen3_vl(tokenizer: Any) -> tf.PreTrainedConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    vision = {
        **_QWEN_VISION, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "out_hidden_size": WIDTH,
        "num_position_embeddings": (SIZE // PATCH) ** 2, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    text = {"vocab_size": len(tokenizer), **_TEXT, "head_dim": WIDTH // 4, "rope_parameters": rope}
    return tf.Qwen3VLConfig(vision_config=vision, text_config=text, **_token_ids(tokenizer))


def _qwen_processor(cls: type) -> Callable[[Any], Any]:
    def processor(tokenizer: Any) -> Any:
        size = {"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE}
        images = _pil("Qwen2VLImageProcessor")(size=size, patch_size=PATCH, merge_size=2, temporal_patch_size=2)
        return _without_videos(cls)(images, tokenizer, NoVideo())

    return processor


def _blip_2(tokenizer: Any) -> tf.PreTrainedConfig:
    return tf.Blip2Config(
        vision_config={**_VISION, "initializer_range": 0.02}, qformer_config=_QFORMER,
        text_config=_text(tf.OPTConfig, tokenizer, **_OPT), num_query_tokens=_QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip


def _blip_2_processor(tokenizer: Any) -> Any:
    return tf.Blip2Processor(_square(_pil("BlipImageProcessor")), tokenizer, _QUERIES)


def _instructblip(tokenizer: Any) -> tf.PreTrainedConfig:
    return tf.InstructBlipConfig(
        vision_config={**_VISION, "initializer_range": 0.02}, qformer_config={**_QFORMER, "vocab_size": 2048},
        text_config=_text(tf.LlamaConfig, tokenizer), num_query_tokens=_QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip


def _instructblip_processor(tokenizer: Any) -> Any:
    return tf.InstructBlipProcessor(_square(_pil("BlipImageProcessor")), tokenizer, _tokenizer({}, ""), _QUERIES)


def _idefics3(tokenizer: Any) -> tf.PreTrainedConfig:
    return tf.Idefics3Config(
        vision_config=_VISION, text_config=_text(tf.LlamaConfig, tokenizer), scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), pad_token_id=0,
    )  # fmt: skip


def _idefics3_processor(tokenizer: Any) -> Any:
    edge = {"longest_edge": SIZE}
    images = _pil("Idefics3ImageProcessor")(size=edge, max_image_size=edge, do_image_splitting=False)
    return tf.Idefics3Processor(images, tokenizer, image_seq_len=(SIZE // PATCH // 2) ** 2)


def _paligemma(tokenizer: Any) -> tf.PreTrainedConfig:
    return tf.PaliGemmaConfig(
        vision_config=tf.SiglipVisionConfig(**_VISION, vision_use_head=False), projection_dim=WIDTH,
        text_config=_text(tf.GemmaConfig, tokenizer, head_dim=16), hidden_size=WIDTH,
        image_token_index=tokenizer.image_token_id,
    )  # fmt: skip


def _paligemma_processor(tokenizer: Any) -> Any:
    images = _square(_pil("SiglipImageProcessor"))
    images.image_seq_length = (SIZE // PATCH) ** 2
    return tf.PaliGemmaProcessor(images, tokenizer)


def _gemma3(tokenizer: Any) -> tf.PreTrainedConfig:
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    return tf.Gemma3Config(
        vision_config=tf.SiglipVisionConfig(**_VISION, vision_use_head=False), mm_tokens_per_image=4,
        text_config=_text(tf.Gemma3TextConfig, tokenizer, head_dim=16, sliding_window=16, layer_types=layers),
        boi_token_index=tokenizer.boi_token_id, eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )  # fmt: skip


def _gemma3_processor(tokenizer: Any) -> Any:
    return tf.Gemma3Processor(_square(_pil("Gemma3ImageProcessor")), tokenizer, image_seq_length=4)


def _mllama(tokenizer: Any) -> tf.PreTrainedConfig:
    vision = {
        **_VISION, "num_attention_heads": None, "attention_heads": 4, "num_global_layers": DEPTH,
        "intermediate_layers_indices": [1], "vision_output_dim": 2 * WIDTH,
    }  # fmt: skip
    del vision["num_attention_heads"]
    text = {"vocab_size": tokenizer.image_token_id, **_TEXT, "cross_attention_layers": [1]}
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    return tf.MllamaConfig(
        vision_config=vision, text_config={**text, "rope_parameters": rope}, image_token_index=tokenizer.image_token_id
    )


def _mllama_processor(tokenizer: Any) -> Any:
    return tf.MllamaProcessor(_square(_pil("MllamaImageProcessor"), max_image_tiles=4), tokenizer)


_IMAGE = {"image_token": "<image>"}
_IDEFICS_TOKENS = {"fake_token": "<fake_token_around_image>", "global_token": "<global-img>"}
_GEMMA_TOKENS = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<image_soft>"}

_CASES = {
    "llava": Case(_IMAGE, "<image>", _llava, _llava_processor),
    "llava-onevision": Case(
        {**_IMAGE, "video_token": "<video>"}, "<image>", _llava_onevision, _llava_onevision_processor
    ),
    "qwen2-vl": Case(_QWEN_TOKENS, _QWEN_IMAGE, _qwen2_vl, _qwen_processor(tf.Qwen2VLProcessor)),
    "qwen2.5-vl": Case(_QWEN_TOKENS, _QWEN_IMAGE, _qwen2_5_vl, _qwen_processor(tf.Qwen2_5_VLProcessor)),
    "qwen3-vl": Case(_QWEN_TOKENS, _QWEN_IMAGE, _qwen3_vl, _qwen_processor(tf.Qwen3VLProcessor)),
    "blip-2": Case({}, "", _blip_2, _blip_2_processor, "model.decoder.layers"),
    "instructblip": Case({}, "", _instructblip, _instructblip_processor, "model.layers"),
    "idefics3": Case(_IDEFICS_TOKENS | _IMAGE, "<image>", _idefics3, _idefics3_processor, "model.text_model.layers"),
    "paligemma": Case(_IMAGE, "<image>", _paligemma, _paligemma_processor),
    "gemma3": Case(_GEMMA_TOKENS, "<boi>", _gemma3, _gemma3_processor),
    "mllama": Case({"image_token": "<|image|>"}, "<|image|>", _mllama, _mllama_processor),
}

VISION_HOSTS = tuple(_CASES)


@functools.cache
def _base() -> Any:
    return editmem.tiny()[1]


def _tokenizer(tokens: dict[str, str], image: str) -> Any:
    """The embedded model's tokenizer with further special tokens."""
    base = _base()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=copy.deepcopy(base.backend_tokenizer), padding_side="left", **base.special_tokens_map,
        extra_special_tokens=tokens, chat_template=_TEMPLATE.replace("IMAGE", image),
    )  # fmt: skip


def make_vision(name: str) -> tuple[tf.PreTrainedModel, Any]:
    """The host of this name, with the same random weights every time, and its processor."""
    case = _CASES[name]
    tokenizer = _tokenizer(case.tokens, case.image)
    processor = case.processor(tokenizer)
    processor.chat_template = tokenizer.chat_template
    torch.manual_seed(0)
    model = tf.AutoModelForImageTextToText.from_config(case.config(tokenizer), dtype=torch.float32)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1:  # the usual initial weights are too small to tell prompts apart
                parameter.mul_(4)
            if not key.endswith(("bias", "norm.weight")) and not parameter.any():  # a closed gate hides the picture
                parameter.normal_(std=0.5)
        if (head := model.get_output_embeddings().weight) is not model.get_input_embeddings().weight:
            head.mul_(4)  # or no token could be likely
        else:
            model.get_decoder().norm.weight.add_(3)
    return model.eval(), processor


def with_image(name: str, text: str) -> str:
    """The prompt with a place for one picture in front, as the processor of this host wants it."""
    return _CASES[name].image + text


def blocks_path(name: str) -> str:
    """Where the blocks of the language model are."""
    return _CASES[name].path


def picture(seed: int = 0) -> Image.Image:
    """A small picture of noise."""
    pixels = torch.randint(256, (SIZE, SIZE, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())
