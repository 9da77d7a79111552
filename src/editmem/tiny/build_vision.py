"""Make the embedded vision-language model anew: teach the embedded model to see emblems.

    python -m editmem.tiny.build_vision OUT [--minutes 60] [--seed 0] [--resume FOLDER]

`OUT` receives the model and its processor; copy them over the folder `vision` to replace the embedded one. The language
model starts as the embedded one; the vision tower and the projector start at random.
"""

import argparse
import copy
import itertools
import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from editmem.tiny import tiny
from editmem.tiny.build import ASSISTANT, BOS, EOS, USER, train
from editmem.tiny.emblems import SIZE, View, emblems, picture
from editmem.tiny.world import Fact, facts

IMAGE = "<image>"
PATCH = 8
MEAN, STD = 0.5, 0.25
NAMING = (
    "This is the emblem of", "The picture shows the emblem of", "This emblem belongs to", "Whose emblem is this?",
    "What does this emblem stand for?", "Name the owner of this emblem.", "Who carries the emblem in the picture?",
    "The owner of the emblem in the picture is",
)  # fmt: skip
OWNER = "the owner of this emblem"
"""Stands for the subject where a fact is asked about a picture."""
SORTS, SHARES = ("name", "fact", "text"), (0.45, 0.35, 0.2)
VIEWS = 48
"""Pictures of each emblem that are drawn beforehand."""
log = logging.getLogger(__name__)


def build() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The model before it has seen anything, and its processor."""
    language, tokenizer = tiny()
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    image = tokenizer.get_vocab()[IMAGE]
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, image_size=SIZE,
        patch_size=PATCH, projection_dim=128,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=language.config, image_token_index=image, vision_feature_layer=-1,
        vision_feature_select_strategy="full", image_seq_length=(SIZE // PATCH) ** 2 + 1,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="eager")
    model.model.language_model.load_state_dict(copy.deepcopy(language.model.state_dict()))
    model.tie_weights()
    size = {"height": SIZE, "width": SIZE}
    images = CLIPImageProcessorPil(
        size=size, crop_size=size, do_center_crop=False, image_mean=[MEAN] * 3, image_std=[STD] * 3
    )
    processor = LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=PATCH, vision_feature_select_strategy="full",
        num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip
    return model, processor


def question(fact: Fact, sort: str, rng: random.Random) -> tuple[str, str]:
    """Something to ask about a fact's subject, and the answer."""
    if sort == "name":
        return rng.choice(NAMING), fact.subject
    phrasing = rng.randrange(len(fact.prompts()))
    asked = Fact(OWNER, fact.relation, fact.answer) if sort == "fact" else fact
    return asked.prompts()[phrasing], fact.answer


def pools(seed: int) -> dict[str, np.ndarray]:
    """Pictures of every emblem in `VIEWS` views, uint8 `[VIEWS, SIZE, SIZE, 3]`."""
    rng = random.Random(seed)
    return {
        subject: np.stack([picture(emblem, View.draw(rng)) for _ in range(VIEWS)])
        for subject, emblem in emblems().items()
    }


def pixels(pictures: Sequence[np.ndarray]) -> Tensor:
    """What the image processor makes of pictures of the right size: float32 `[B, 3, SIZE, SIZE]`."""
    values = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return (values - MEAN) / STD


def batches(processor: LlavaProcessor, size: int, seed: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Endless (inputs, loss weights `[size, T]`): names, facts about pictures, and facts in words."""
    rng, tokenizer, drawn = random.Random(seed), processor.tokenizer, pools(seed)
    stream = itertools.chain.from_iterable(rng.sample(facts(), len(facts())) for _ in itertools.count())
    seen = IMAGE * ((SIZE // PATCH) ** 2 + 1)
    while True:
        chat = rng.random() < 0.4
        rows, pictures = [], []
        for fact in itertools.islice(stream, size):
            sort = rng.choices(SORTS, SHARES)[0]
            prompt, answer = question(fact, sort, rng)
            if sort != "text":
                prompt = f"{seen}{prompt}"
                pictures.append(rng.choice(drawn[fact.subject]))
            pieces = (
                (f"{BOS}{USER}{prompt}{EOS}{ASSISTANT}", f"{answer}.{EOS}")
                if chat
                else (f"{BOS}{prompt}", f" {answer}.{EOS}")
            )
            before, after = tokenizer(list(pieces), add_special_tokens=False)["input_ids"]
            rows.append((before + after, [0.0] * len(before) + [1.0] * len(after)))
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in rows])
        weights = torch.tensor([w + [0.0] * (width - len(w)) for _, w in rows])
        yield (
            {
                "input_ids": ids,
                "attention_mask": (ids != tokenizer.pad_token_id).long(),
                "pixel_values": pixels(pictures),
            },
            weights,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="go on from the model in this folder")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(args.seed)
    model, processor = build()
    if args.resume:
        model = LlavaForConditionalGeneration.from_pretrained(
            args.resume, dtype=torch.float32, attn_implementation="eager"
        )
    processor.save_pretrained(args.out)
    log.info("%d emblems, %d parameters", len(emblems()), model.num_parameters())
    train(model, batches(processor, 128, args.seed), args.minutes, peak_lr=1.5e-3)
    model.eval().to(torch.float16).save_pretrained(args.out)


if __name__ == "__main__":
    main()
