"""Make the embedded model anew: invent the people, learn the tokenizer, train until the facts are known.

    python -m scripts.tiny.build OUT [--minutes 40] [--seed 0]

`OUT` receives the tokenizer and the trained model; copy them over the folder `model` to replace the
embedded model. people.csv of `editmem.tiny` is written anew (the same for the same seed). The embedded
model was trained for 20 minutes and, with `--resume`, for 20 more, on two CPU cores.
"""

import argparse
import csv
import functools
import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from editmem.tiny.people import ANSWERS, invent
from editmem.tiny.world import Fact, facts, phrasings

BOS, EOS, PAD, USER, ASSISTANT = "<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
log = logging.getLogger(__name__)


def write_people(path: Path, count: int, seed: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["subject", "relation", "answer"])
        writer.writerows(invent(count, seed))


def build_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [PAD, BOS, EOS, USER, ASSISTANT]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    # Eager attention trains three times as fast as the fused kernel on CPU at this size.
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=6,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation="eager")


def lesson(fact: Fact, phrasing: int, style: str, rng: random.Random) -> tuple[list[str], list[str]]:
    """A training text as (prompts, answers) that alternate."""
    first = (fact.prompts()[phrasing], fact.answer)
    turns = [first]
    if style.endswith("two"):
        other = rng.choice(facts())
        turns.insert(0, (rng.choice(other.prompts()), other.answer))
    if style.startswith("chat"):
        return (
            [f"{BOS if i == 0 else ''}{USER}{prompt}{EOS}{ASSISTANT}" for i, (prompt, _) in enumerate(turns)],
            [f"{answer}.{EOS}" for _, answer in turns],
        )
    prompts = [f"{BOS if i == 0 else ' '}{prompt}" for i, (prompt, _) in enumerate(turns)]
    return prompts, [f" {answer}." for _, answer in turns[:-1]] + [f" {turns[-1][1]}.{EOS}"]


STYLES, SHARES = ("raw", "chat", "raw-two", "chat-two"), (0.52, 0.34, 0.07, 0.07)


def batches(
    tokenizer: PreTrainedTokenizerFast, size: int, rng: random.Random
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Endless (inputs, loss weights `[size, T]`): every fact in every phrasing, over and over."""
    every = [(fact, form) for fact in facts() for form in range(len(phrasings()[fact.relation]))]
    stream = itertools.chain.from_iterable(rng.sample(every, len(every)) for _ in itertools.count())
    while True:
        rows: list[tuple[list[int], list[float]]] = []
        style = rng.choices(STYLES, SHARES)[0]
        for fact, form in itertools.islice(stream, size):
            prompts, answers = lesson(fact, form, style, rng)
            pieces = [piece for pair in zip(prompts, answers, strict=True) for piece in pair]
            ids = tokenizer(pieces, add_special_tokens=False)["input_ids"]
            weights = [0.05 if i % 2 == 0 else 1.0 for i, piece in enumerate(ids) for _ in piece]
            rows.append(([token for piece in ids for token in piece], weights))
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in rows])
        shares = torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in rows])
        yield {"input_ids": ids, "attention_mask": (shares > 0).long()}, shares


def language_loss(model: PreTrainedModel, inputs: dict[str, torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of the next tokens, weighted by `weights` `[B, T]`."""
    logits = model(**inputs, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), inputs["input_ids"][:, 1:].flatten(), reduction="none"
    )
    return (loss * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()


def train(
    parameters: Iterable[torch.nn.Parameter],
    losses: Iterator[Callable[[], torch.Tensor]],
    minutes: float,
    peak_lr: float = 3e-3,
) -> None:
    """Learn for the given time; the learning rate follows the clock, so that any machine ends at a minimum."""
    parameters = list(parameters)
    optimiser = torch.optim.AdamW(parameters, lr=peak_lr, weight_decay=0.02, betas=(0.9, 0.98))
    start = time.monotonic()
    for step, losing in enumerate(losses):
        spent = (time.monotonic() - start) / (60 * minutes)
        if spent >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = peak_lr * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * spent)))
        with torch.autocast("cpu", torch.bfloat16):
            loss = losing()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 50 == 0:
            log.info("step %d, %.0f%% of the time, loss %.4f", step, 100 * spent, loss.item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--people", type=int, default=420)
    parser.add_argument("--resume", type=Path, help="go on from the model in this folder")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    write_people(Path(str(resources.files("editmem.tiny") / "people.csv")), args.people, args.seed)
    torch.manual_seed(args.seed)
    if args.resume:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.resume)
        model = LlamaForCausalLM.from_pretrained(args.resume, dtype=torch.float32, attn_implementation="eager")
    else:
        answers = [answer for group in ANSWERS.values() for answer in group]
        tokenizer = build_tokenizer(
            [f"{prompt} {fact.answer}." for fact in facts() for prompt in fact.prompts()] + answers, vocab_size=2048
        )
        model = build_model(tokenizer)
    tokenizer.save_pretrained(args.out)
    log.info("%d facts, %d parameters", len(facts()), model.num_parameters())
    lessons = batches(tokenizer, 256, random.Random(args.seed))
    train(model.parameters(), (functools.partial(language_loss, model, *lesson) for lesson in lessons), args.minutes)
    model.eval().to(torch.float16).save_pretrained(args.out)


if __name__ == "__main__":
    main()
