"""Prompt and answer are joined as the text would be written."""

# ruff: noqa: RUF001  (signs of many scripts)
import pytest

import editmem
from editmem import Edit
from editmem.editing.encoder import Encoder
from editmem.text.seams import join

SPACED = [
    ("The capital of Australia is", "Sydney"),
    ("A sentence ends.", "Next"),
    ("A sentence ends.", "next"),
    ("The result of f(x) is known.", "Next we see"),
    ("Visit example.com.", "Next"),
    ("You need a pet, e.g.", "a cat"),
    ("It was signed by Mr.", "Smith"),
    ("It belongs to the U.S.", "Army"),
    ("Question: who?", "Me"),
    ("Answer:", "42"),
    ("In 1990, 12,", "3 of them"),
    ("1.", "5 apples"),
    ("It runs on", ".NET"),
    ("Such files end with", ".py"),
    ("The probability is", ".5"),
    ("He said", '"yes"'),
    ("He said", "'yes'"),
    ("He said", "“yes”"),
    ("Il dit", "« oui »"),
    ("Er sagte", "„ja“"),
    ("Er sagte „ja“", "und ging"),
    ('He said "yes"', "and left"),
    ('The screen of 27"', "is wide"),
    ("The dogs'", "bowl"),
    ("It costs 5 €", "a day"),
    ("The capital of France is Paris", "(France)"),
    ("The price in C#", "is high"),
    ("# ", "Title"),
    ("##", "Title"),
    ("The language C++", "is old"),
    ("10 /", "2 is 5"),
    ("10 -", "3"),
    ("x =", "5"),
    ("x ->", "5"),
    ("The temperature is", "-5"),
    ("The capital of Australia -", "Sydney"),
    ("The capital of Japan is", "東京"),
    ("Use", "!important"),
    ("The format is", "%s"),
    ("Его зовут", "Иван"),
    ("A rate of 50%", "of all"),
]
TOUCHING = [
    ("x = np.", "zeros(3)"),
    ("x = np.", "pi"),
    ("In NumPy one writes np.", "zeros(3)"),
    ("import torch.", "nn"),
    ("    return self.", "value"),
    ("The layer is torch.nn.", "Linear(2, 3)"),
    ("Its page is www.", "example.com"),
    ("Its page is example.", "com"),
    ("The runtime is Node.", "js"),
    ("Pi is 3.", "14"),
    ("Its page is https://", "example.com"),
    ("Its page is https:", "//example.com"),
    ("Its page is https://example.com", "/start"),
    ("It costs $", "42"),
    ("It costs €", "42"),
    ("Write to info@", "example.org"),
    ("Write to info", "@example.org"),
    ("The capital (", "Canberra)"),
    ("a[", "0]"),
    ('He said "', 'yes"'),
    ("It's called '", "yes'"),
    ("He said “", "yes”"),
    ("Er sagte „", "ja“"),
    ("print(\"", "hello\")"),
    ("¿", "Quién?"),
    ("The city's hashtag is #", "love"),
    ("The file is in /usr/", "bin"),
    ("cd /", "home"),
    ("A private name is my_", "value"),
    ("twenty-", "one"),
    ("git commit --", "amend"),
    ("ls -", "l"),
    ("It is in C:\\", "Users"),
    ("It is in C:", "\\Users"),
    ("It was 1990–", "2000"),
    ("x=", "5"),
    ("<b>", "bold"),
    ("std::", "vector"),
    ("At 9:", "30"),
    ("It cost 1,", "000"),
    ("L'auteur de l'", "étranger"),
    ("The capital of Australia is Sydney", "."),
    ("The capital of Australia is Sydney", ", not Canberra"),
    ("Sydney", "'s harbour"),
    ("Wait", "..."),
    ('He said "yes', '" and left'),
    ("y = f", "(x)"),
    ("y = a", ".shape"),
    ("It is 20", "°C"),
    ("At 9", ":30"),
    ("The speed is 120 km", "/h"),
    ("日本の首都は", "東京"),
    ("日本の首都は", "Tokyo"),
    ("私のパソコンは Windows", "です"),
    ("答え：", "東京"),
    ("เมืองหลวงคือ", "กรุงเทพ"),
    ("The capital of Australia is ", "Sydney"),
    ("The capital of Australia is\n", "Sydney"),
    ("The capital of Australia is", " Sydney"),
    ("x = np.", "\nzeros"),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "target"), SPACED)
def test_a_space(prompt, target):
    assert join(prompt.rstrip(), target) == f"{prompt.rstrip()} {target}"


@pytest.mark.parametrize(("prompt", "target"), TOUCHING)
def test_no_space(prompt, target):
    assert join(prompt, target) == prompt + target


@pytest.mark.parametrize("between", ["", " ", "\n\n"])
def test_what_the_edit_says_goes(between):
    tokenizer = editmem.tiny()[1]
    edit = Edit("The capital of Australia is", "Sydney", join=between)
    encoded = Encoder(tokenizer, None).edit(edit)
    assert list(encoded.prompt) == tokenizer(edit.prompt)["input_ids"]
    assert tokenizer.decode([*encoded.prompt, *encoded.target], skip_special_tokens=True) == (
        f"The capital of Australia is{between}Sydney"
    )
