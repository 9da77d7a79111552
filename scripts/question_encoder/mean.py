"""Average two students, one of which was trained on from the other: better than either on relations held out.

python scripts/question_encoder/mean.py DATA WORK FIRST SECOND SHARE
"""

import argparse
from pathlib import Path

import torch
from bank import texts
from measure import asks, held, table
from student import Student
from train import centres, clustered

from editmem.routing.question_encoder import FIRST


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs=2)
    parser.add_argument("share", type=float, help="of the second")
    given = parser.parse_args()
    torch.manual_seed(0)
    one, other = (torch.load(given.work / f"{name}.pt") for name in given.names)
    state = {
        name: value + given.share * (other["student"][name] - value) if value.is_floating_point() else value
        for name, value in one["student"].items()
    }
    layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    student = Student(one["words"], state["table"][FIRST:], layers)
    student.load_state_dict(state)
    student.eval()
    lines, learning, checking, *_ = texts(given.data)
    print("asks", table(asks(given.data / "asks/asks.py"), student.encode))
    print("held out", table(held(checking.relations), student.encode))
    usual = [n for n, relation in enumerate(learning.relations) if not relation.name.startswith("pair ")]
    student.save(given.work / "mean.safetensors", clustered(centres(student, learning, lines)[usual]))


if __name__ == "__main__":
    main()
