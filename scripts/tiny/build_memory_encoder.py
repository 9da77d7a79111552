"""Make the memory encoder of the embedded vision-language model anew.

    python -m scripts.tiny.build_memory_encoder OUT [--steps 3000] [--examples 16000]

It learns on people and countries with facts that the model does not know (`editmem.tiny.knowledge`), without those for
tests. `OUT` receives the encoder; copy it over `methods/comem/tiny_encoder` to replace the embedded one.
"""

import argparse
import itertools
import logging
import random
from collections.abc import Iterator

import editmem
from editmem import Edit, Item
from editmem.methods.comem.training import Example, Progress, parts_of, save, train
from editmem.tiny.emblems import View, picture
from editmem.tiny.knowledge import Known, items
from scripts.tiny.build_vision import NAMING, OWNER

log = logging.getLogger(__name__)


def examples(seed: int, pictured: float) -> Iterator[Example]:
    """Endless examples, three questions about each item.

    A share `pictured` of the items has a picture, half of which are asked about by another view of it.
    """
    rng = random.Random(seed)
    for known in items(seed, test=False):
        picture_of = rng.random() < pictured
        facts = rng.sample(known.facts, len(known.facts)) * 3
        item = item_of(known, picture_of, rng)
        for relation, answer in facts[:3]:
            yield Example(item, question(known, relation, answer, picture_of, rng))


def item_of(known: Known, pictured: bool, rng: random.Random) -> Edit:
    if pictured:
        return Item(known.picture_text, image=picture(known.emblem, View.draw(rng)))
    relation, answer = known.facts[0]
    if len(known.facts) == 1 and rng.random() < 0.5:
        return Edit(rng.choice(known.questions(relation)), answer)
    return Item(known.text)


def question(known: Known, relation: str, answer: str, pictured: bool, rng: random.Random) -> Edit:
    image, asked = None, rng.choice(known.questions(relation))
    if pictured and rng.random() < 0.5:
        image, asked = picture(known.emblem, View.draw(rng)), rng.choice(known.questions(relation, OWNER))
        if rng.random() < 0.1:
            asked, answer = rng.choice(NAMING), known.subject
    prompt = [{"role": "user", "content": asked}] if rng.random() < 0.3 else asked
    return Edit(prompt, answer, image=image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--examples", type=int, default=16_000)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--distractors", type=float, default=0.1)
    parser.add_argument("--pictured", type=float, default=0.35)
    parser.add_argument("--start", help="Folder of an encoder to go on from.")
    parser.add_argument("--checkpoint")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recent: list[float] = []

    def report(progress: Progress) -> None:
        recent.append(progress.loss)
        if progress.step % 50 == 0:
            log.info("%5d  %.3f nats  %4.0f s", progress.step, sum(recent[-50:]) / len(recent[-50:]), progress.seconds)

    model, processor = editmem.tiny(vision=True)
    with editmem.wrap(model, "comem", tokenizer=processor) as editor:
        if arguments.start:
            parts_of(editor)[1].encoder.load(arguments.start)
        train(
            editor, list(itertools.islice(examples(1, arguments.pictured), arguments.examples)), steps=arguments.steps,
            batch_size=arguments.batch_size, rate=arguments.rate, distractors=arguments.distractors, progress=report,
            checkpoint=arguments.checkpoint,
        )  # fmt: skip
        save(editor, arguments.out)


if __name__ == "__main__":
    main()
