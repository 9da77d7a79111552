"""Edits of emblems and of facts about their owners, and questions about them, on the embedded model that sees."""

import random

from PIL import Image

import editmem
from editmem.tiny.emblems import View, emblems, picture

NAMING, AGAIN = "The picture shows the emblem of", "Name the owner of this emblem."
A, B, OTHER = "Kenya", "Peru", "France"
TOLD, TOLD_AGAIN = "The capital of Peru is", "What is the capital of Peru?"
COMPOSED = "What is the capital of the owner of this emblem?"


def seen(owner, view=0):
    return Image.fromarray(picture(emblems()[owner], View.draw(random.Random(view))))


def wrapped(vlm, model, spec="memeic"):
    return editmem.wrap(model, spec, tokenizer=vlm[1])


def edit_both(editor):
    return (
        editor.edit(NAMING, B, image=seen(A)),
        editor.edit(TOLD, "Sydney"),
    )


ROWS = [(NAMING, seen(A)), (AGAIN, seen(A, 1)), (TOLD, None), (TOLD_AGAIN, None), (COMPOSED, seen(A, 2))]
ANSWERS = [B, B, "Sydney", "Sydney", "Sydney"]
UNTOUCHED = [
    (NAMING, seen(OTHER)),
    (COMPOSED, seen(OTHER, 1)),
    ("The capital of Chile is", None),
    ("The currency of Peru is", None),
]


def encode(vlm, rows, side="left", chat=False):
    processor = vlm[1]
    texts = []
    for prompt, image in rows:
        if chat:
            content = [{"type": "text", "text": prompt}]
            content = [{"type": "image"}, *content] if image is not None else content
            texts.append(
                processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            )
        else:
            texts.append(("<image>" if image is not None else "") + prompt)
    images = [image for _, image in rows if image is not None] or None
    options = {"add_special_tokens": False} if chat else {}
    return processor(images=images, text=texts, return_tensors="pt", padding=True, padding_side=side, **options)


def say(vlm, model, rows, side="left", chat=False, **options):
    inputs = encode(vlm, rows, side, chat)
    ids = model.generate(**inputs, max_new_tokens=8, **{"do_sample": False, **options})
    said = vlm[1].tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in said]


def right(said, answers=ANSWERS):
    return [text.startswith(answer) for text, answer in zip(said, answers, strict=True)]
