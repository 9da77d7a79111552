"""Make the embedded vision-language model anew: teach the embedded model to see emblems.

    python -m scripts.tiny.build_vision OUT [--see 15] [--spell 25] [--join 15] [--evidence 0.15] [--resume FOLDER]

`OUT` receives the model and its processor; copy them over the folder `vision` to replace the embedded one. The
language model starts as the embedded one. In three stages of so many minutes, the vision tower learns, alone, to tell
shapes, colours and owners apart and to put the owner's name, in the language model's own embeddings, in the place of
the picture; the language model learns to answer with names written in that place; and both learn together. The first
two may run side by side, to be put together with `--resume` and `--sight`.
"""

import argparse
import copy
import functools
import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)

from editmem.tiny import tiny
from editmem.tiny.emblems import COLOURS, SHAPES, SIZE, Emblem, View, emblems, picture
from editmem.tiny.world import Fact, facts
from scripts.tiny.build import ASSISTANT, BOS, EOS, USER, language_loss, train

try:
    from transformers import CLIPImageProcessorPil
except ImportError:  # the name before there was one on torchvision
    from transformers import CLIPImageProcessor as CLIPImageProcessorPil  # type: ignore[assignment]

IMAGE = "<image>"
PATCH = 12
MEAN, STD = 0.5, 0.25
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NAMING = (
    "This is the emblem of", "The picture shows the emblem of", "This emblem belongs to", "Whose emblem is this?",
    "What does this emblem stand for?", "Name the owner of this emblem.", "Who carries the emblem in the picture?",
    "The owner of the emblem in the picture is",
)  # fmt: skip
OWNER = "the owner of this emblem"
"""Stands for the subject where a fact is asked about a picture."""
SORTS, SHARES = ("name", "fact", "text"), (0.15, 0.7, 0.15)
READINGS = ("named", "told", "both", "known", "beside"), (0.2, 0.25, 0.3, 0.15, 0.1)
"""What a text may say before it asks: see `reading`."""
VIEWS = 96
"""Pictures of each emblem that are drawn beforehand."""
MARKS = 5
IMAGE_TOKENS = (SIZE // PATCH) ** 2 + 1
log = logging.getLogger(__name__)


def build() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The model before it has seen anything, and its processor."""
    language, tokenizer = tiny()
    language.config.name_or_path = ""
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    image = tokenizer.get_vocab()[IMAGE]
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, image_size=SIZE,
        patch_size=PATCH, projection_dim=128,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=language.config, image_token_index=image, vision_feature_layer=-1,
        vision_feature_select_strategy="full", image_seq_length=IMAGE_TOKENS,
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
        num_additional_image_tokens=1, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    return model, processor


def question(fact: Fact, sort: str, rng: random.Random) -> tuple[str, str]:
    """Something to ask about a fact's subject, and the answer."""
    if sort == "name":
        return rng.choice(NAMING), fact.subject
    phrasing = rng.randrange(len(fact.prompts()))
    asked = Fact(OWNER, fact.relation, fact.answer) if sort == "fact" else fact
    return asked.prompts()[phrasing], fact.answer


def reading(fact: Fact, sort: str, rng: random.Random) -> tuple[str, str, bool]:
    """A text that says something else than the model knows and asks about it; the answer; whether it has a picture.

    It says whose the emblem is ("named"), what a fact is ("told"), "both", or whose the emblem is, where a fact is
    asked that is as the model knows it ("known"); or something "beside" the question.
    """
    alike = [other.answer for other in facts() if other.relation == fact.relation]
    naming, forms, new = rng.choice(NAMING), fact.prompts(), rng.choice(alike)
    named, told = f"{naming} {fact.subject}.", f"{rng.choice(forms)} {new}."
    of_picture = rng.choice(Fact(OWNER, fact.relation, "").prompts())
    if sort == "named":
        return f"{named} {rng.choice(NAMING)}", fact.subject, True
    if sort == "told":
        return f"{told} {rng.choice(forms)}", new, False
    if sort == "both":
        return f"{named} {told} {of_picture}", new, True
    if sort == "known":
        return f"{named} {of_picture}", fact.answer, True
    other = rng.choice(facts())
    return f"{told} {rng.choice(other.prompts())}", new if told_of(other, fact) else other.answer, False


def told_of(fact: Fact, other: Fact) -> bool:
    return (fact.subject, fact.relation) == (other.subject, other.relation)


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


def marks(emblem: Emblem) -> list[int]:
    """What an emblem shows, as the numbers of its two shapes and three colours."""
    shapes, colours = list(SHAPES), list(COLOURS)
    return [
        shapes.index(emblem.field), colours.index(emblem.field_colour),
        shapes.index(emblem.charge), colours.index(emblem.charge_colour), colours.index(emblem.edge_colour),
    ]  # fmt: skip


def names(processor: LlavaProcessor, owners: Sequence[str]) -> Tensor:
    """The tokens of each owner's name, padded to as many as a picture has: int64 `[owners, IMAGE_TOKENS]`."""
    tokenizer = processor.tokenizer
    rows = [tokenizer(f" {owner}", add_special_tokens=False)["input_ids"] for owner in owners]
    return torch.tensor([ids + [tokenizer.pad_token_id] * (IMAGE_TOKENS - len(ids)) for ids in rows])


def sight(model: LlavaForConditionalGeneration) -> tuple[nn.Module, nn.Module]:
    """The vision tower and the projector."""
    return cast(nn.Module, model.model.vision_tower), cast(nn.Module, model.model.multi_modal_projector)


def looks(
    model: LlavaForConditionalGeneration,
    heads: nn.ModuleList,
    drawn: dict[str, np.ndarray],
    spelled: Tensor,
    size: int,
    seed: int,
) -> Iterator[Callable[[], Tensor]]:
    """Endless losses of seeing: what an emblem shows and whose it is, from the tower's mean output; and each of a
    picture's tokens near the embedding of a token of the owner's name, as if it had been written."""
    rng, owners = np.random.default_rng(seed), list(drawn)
    shown = torch.tensor([marks(emblems()[owner]) for owner in owners])
    tower, projector = sight(model)
    table = cast(Tensor, model.get_input_embeddings().weight).detach().clone()
    unit = table.square().mean()

    def loss() -> Tensor:
        chosen = rng.integers(len(owners), size=size)
        seen = pixels([drawn[owners[i]][rng.integers(VIEWS)] for i in chosen])
        states = tower(pixel_values=seen).last_hidden_state
        marked, owned = (head(states.mean(1)).float() for head in heads)
        told = nn.functional.cross_entropy(marked.view(size * MARKS, -1), shown[chosen].flatten())
        told = MARKS * told + nn.functional.cross_entropy(owned, torch.from_numpy(chosen))
        written = projector(states).float()
        return told + (written - table[spelled[chosen]]).square().mean() / unit

    while True:
        yield loss


def batches(
    processor: LlavaProcessor, drawn: dict[str, np.ndarray] | None, size: int, seed: int, evidence: float
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Endless (inputs, loss weights `[size, T]`): names, facts about pictures, and facts in words.

    A share `evidence` of the batches says something first and asks about that, beside pictures of anyone's. Without
    pictures (`drawn` is None) owners' names stand in their place.
    """
    rng, tokenizer = random.Random(seed), processor.tokenizer
    stream = itertools.chain.from_iterable(rng.sample(facts(), len(facts())) for _ in itertools.count())
    owners = list(emblems())
    spelled = dict(zip(owners, names(processor, owners).tolist(), strict=True))
    while True:
        chat, told = rng.random() < 0.4, rng.random() < evidence
        rows, pictures = [], []
        for fact in itertools.islice(stream, size // 2 if told else size):
            if told:
                prompt, answer, pictured = reading(fact, rng.choices(*READINGS)[0], rng)
                owner = rng.choice(owners)
            else:
                sort = rng.choices(SORTS, SHARES)[0]
                (prompt, answer), pictured, owner = question(fact, sort, rng), sort != "text", fact.subject
            ids, weights = encode(tokenizer, f"{IMAGE * IMAGE_TOKENS * pictured}{prompt}", answer, chat)
            if pictured and drawn is None:
                start = ids.index(tokenizer.convert_tokens_to_ids(IMAGE))
                ids[start : start + IMAGE_TOKENS] = spelled[owner]
            elif pictured and drawn is not None:
                pictures.append(rng.choice(drawn[owner]))
            rows.append((ids, weights))
        yield collate(rows, pictures, tokenizer.pad_token_id)


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, chat: bool) -> tuple[list[int], list[float]]:
    """Token ids of a lesson and their weights."""
    pieces = (
        (f"{BOS}{USER}{prompt}{EOS}{ASSISTANT}", f"{answer}.{EOS}") if chat else (f"{BOS}{prompt}", f" {answer}.{EOS}")
    )
    before, after = tokenizer(list(pieces), add_special_tokens=False)["input_ids"]
    return before + after, [0.0] * len(before) + [1.0] * len(after)


def collate(
    rows: Sequence[tuple[list[int], list[float]]], pictures: Sequence[np.ndarray], pad: int
) -> tuple[dict[str, Tensor], Tensor]:
    """A batch, padded on the right; padding tokens that spell a name are real."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    weights = torch.tensor([w + [0.0] * (width - len(w)) for _, w in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows])
    inputs = {"input_ids": ids, "attention_mask": mask}
    return inputs | ({"pixel_values": pixels(pictures)} if pictures else {}), weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for stage, minutes in (("see", 15), ("spell", 25), ("join", 15)):
        parser.add_argument(f"--{stage}", type=float, default=minutes, help="minutes of this stage")
    parser.add_argument(
        "--evidence", type=float, default=0.15, help="share of the lessons that are about what they say"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="go on from the model in this folder")
    parser.add_argument("--sight", type=Path, help="take vision tower and projector from the model in this folder")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(args.seed)
    model, processor = build()
    if args.resume:
        model = load(args.resume)
    if args.sight:
        for part, source in zip(sight(model), sight(load(args.sight)), strict=True):
            part.load_state_dict(source.state_dict())
    processor.save_pretrained(args.out)
    log.info("%d emblems, %d parameters", len(emblems()), model.num_parameters())
    drawn = pools(args.seed) if args.see or args.join else {}
    if args.see:
        heads = nn.ModuleList([nn.Linear(128, MARKS * len(SHAPES)), nn.Linear(128, len(drawn))])
        learned = itertools.chain(heads.parameters(), *(part.parameters() for part in sight(model)))
        train(learned, looks(model, heads, drawn, names(processor, list(drawn)), 128, args.seed), args.see, args.rate)
        model.save_pretrained(args.out)
    for minutes, pictures in ((args.spell, None), (args.join, drawn)):
        if minutes:
            lessons = batches(processor, pictures, 128, args.seed, args.evidence)
            losses = (functools.partial(language_loss, model, *lesson) for lesson in lessons)
            train(model.parameters(), losses, minutes, args.rate)
            model.save_pretrained(args.out)
    model.eval().to(torch.float16).save_pretrained(args.out)


def load(folder: Path) -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


if __name__ == "__main__":
    main()
