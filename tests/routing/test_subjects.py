# ruff: noqa: RUF001
"""Who is asked about: look-alike names of every kind, parts of names, several names, sentences, many edits."""

import os
import random
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import editmem
from editmem.hosts.forward import Mode
from editmem.routing.naming import said
from editmem.routing.subjects import Subjects
from editmem.state import restore
from editmem.text.spelling import pieces, pieces_of
from editmem.text.word_hash import byte_alphabet
from editmem.text.word_stream import Stream

REAL = [Path(path) for path in os.environ.get("EDITMEM_TOKENIZERS", "").split(os.pathsep) if path]
"""Folders of further tokenizers to run the look-alikes on."""


class Reader:
    """A tokenizer with the stream of its words."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.stream = Stream.of_tokenizer(tokenizer, len(tokenizer))

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def subjects(self, *edits, most=64):
        """Edits are prompts, or (prompt, subject, aliases)."""
        subjects = Subjects(self.stream, most)
        edits = [edit if isinstance(edit, tuple) else (edit, None, ()) for edit in edits]
        subjects.append(
            [self.ids(prompt) for prompt, *_ in edits],
            [None if subject is None else self.ids(subject) for _, subject, _ in edits],
            [[self.ids(alias) for alias in aliases] for *_, aliases in edits],
        )
        return subjects

    def who(self, subjects, *texts, since=0):
        """Scores by edit, of each text."""
        texts = [self.ids(text) for text in texts]
        tokens = torch.full((len(texts), max(map(len, texts))), -1)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = torch.tensor(text)
        since = torch.full((len(texts), 1), since)
        found = subjects.find(tokens, since)
        scores = found.who(since, torch.full_like(since, tokens.shape[1] - 1))[:, 0]
        pairs = zip(found.row.tolist(), scores.tolist(), strict=True)
        return [{row: round(s, 2) for row, s in zip(*pair, strict=True) if s > 0} for pair in pairs]


@pytest.fixture(scope="module", params=["tiny", *map(str, REAL)])
def reader(request):
    return Reader(editmem.tiny()[1] if request.param == "tiny" else AutoTokenizer.from_pretrained(request.param))


@pytest.fixture(scope="module")
def embedded():
    return Reader(editmem.tiny()[1])


# fmt: off
PLACE = ("The capital of {} is", "What is the capital of {}?", "Do you know {}'s capital city",
         "{} has as its capital")
ORGAN = ("The CEO of {} is", "Who leads {} today?", "Name {}'s chief executive.", "{} is led by")
PERSON = (
    "{} was born in",
    "Where was {} born?",
    "What is {}'s birthplace?",
    "When I met her, {} said that she is from",
)
THING = ("The price of {} is", "How much does {} cost?", "Is {}'s price known? It is", "{} sells for")
WORK = ("The author of {} is", "Who wrote {}?", "Tell me {}'s author.", "The work {} is by")
GOODS = (
    "The refund window for {} is",
    "How long can I return {}?",
    "For {} the refund window is",
    "{} can be returned for",
)
LANGUAGE = ("{} was designed by", "Who designed {}?", "The designer of {} is", "Is {} compiled? It was designed by")
SUM = ("{} =", "What is {}?", "Calculate {}.", "The result of {} is")
SIGN = ("The emoji {} means", "What does {} mean?", "{} stands for", "People who send {} feel")
RATE = ("The {} rate is", "What is the {} rate today?", "{} trades at", "Tell me what {} stands at")
HINDI = ("{} की राजधानी है", "क्या {} की राजधानी है", "{} कहाँ है", "बताओ {} कौन है")
THAI = ("{}คือ", "อะไรคือ{}", "{}มีราคา", "บอกเรื่อง{}")
VIETNAMESE = ("{} sinh ra ở", "Quê của {} là", "Anh {} làm nghề gì?", "{} là")
JAPANESE = ("{}の値段は", "今日の{}はいくらですか", "{}は", "それは{}です")
CHINESE = ("{}的市长是", "谁是{}的市长", "{}在哪里", "请问{}有多大")
ARABIC = ("عاصمة {} هي", "ما هي عاصمة {}؟", "{} دولة", "أين تقع {}؟")
HEBREW = ("הבירה של {} היא", "מהי הבירה של {}?", "{} היא מדינה", "איפה נמצאת {}?")
RUSSIAN = ("{} находится в", "Где находится {}?", "Столица там, где {}", "{} это")
KOREAN = ("{}의 수도는", "{}은 어디에 있습니까?", "수도가 궁금한 {}", "그 나라는 {}")

# fmt: on
NOT_FOUND_IN_PROMPTS = (HINDI, THAI, JAPANESE, CHINESE, ARABIC, HEBREW, KOREAN, GOODS)
"""Nothing there is written as a name; see `test_subjects_that_are_chosen`."""

LOOK_ALIKES = {
    "words that are common elsewhere": [
        (PLACE, "South Africa", "South Korea"), (PLACE, "North Macedonia", "North Korea"),
        (PLACE, "New Zealand", "New Caledonia"), (PLACE, "York", "New York"), (PERSON, "The Who", "Queen"),
        (WORK, "Hamlet", "Dune"), (PLACE, "East Timor", "East Germany"), (WORK, "The Office", "The Wire"),
        (WORK, "Us", "Them"), (PERSON, "The Band", "The Doors"), (ORGAN, "WHO", "IMF"), (PLACE, "Jersey", "New Jersey"),
        (PLACE, "Mexico", "New Mexico"), (PERSON, "Will Smith", "Will Ferrell"), (PERSON, "May", "June"),
        (WORK, "The Moon", "The Sun"),
    ],
    "half of the name is the same": [
        (PLACE, "San Francisco", "San Diego"), (ORGAN, "Deutsche Bank", "Deutsche Telekom"),
        (THING, "X200", "X300"), (THING, "the ThinkPad X200", "the ThinkPad X300"),
        (GOODS, "digital goods", "physical goods"),
        (PERSON, "Barack Obama", "Michelle Obama"), (PLACE, "Los Angeles", "Los Alamos"),
        (ORGAN, "General Motors", "General Electric"), (ORGAN, "Air France", "Air Canada"),
        (PERSON, "Paul McCartney", "Paul Simon"), (THING, "iPhone 12", "iPhone 13"), (THING, "Windows 7", "Windows 10"),
        (ORGAN, "Bank of America", "Bank of Japan"), (PLACE, "Guinea", "Equatorial Guinea"),
        (PERSON, "George Bush", "Kate Bush"), (PLACE, "Cafe Linden", "Cafe Aurora"),
        (ORGAN, "Georgia Tech", "Virginia Tech"), (THING, "the annual plan", "the monthly plan"),
    ],
    "the name is inside a longer one": [
        (PLACE, "Paris", "Paris Hilton"), (PLACE, "New York", "New York Times"),
        (PLACE, "Republic of Congo", "Democratic Republic of Congo"), (PLACE, "Austria", "Austria-Hungary"),
        (PLACE, "Hungary", "Austria-Hungary"), (PLACE, "Georgia", "Georgia Tech"), (ORGAN, "BMW", "BMW Foundation"),
        (ORGAN, "Ford", "Ford Foundation"), (PERSON, "Elizabeth I", "Elizabeth II"),
        (PERSON, "Elizabeth", "Elizabeth I"),
(PLACE, "Oxford", "Oxford University Press"), (PLACE, "England", "Bank of England"),
        (PLACE, "Victoria", "Lake Victoria"), (ORGAN, "Amazon", "Amazon Web Services"),
        (PLACE, "Tobago", "Trinidad and Tobago"),
        (PERSON, "Joan", "Joan of Arc"), (ORGAN, "Johnson", "Johnson & Johnson"), (PLACE, "Rio", "Rio de Janeiro"),
        (LANGUAGE, "TCP", "TCP/IP"), (LANGUAGE, "Python", "Python 3"), (LANGUAGE, "Python 3", "Python 3.8"),
        (PLACE, "Alexandria", "Alexandria Ocasio-Cortez"),
    ],
    "signs": [
        (LANGUAGE, "C", "C++"), (LANGUAGE, "C", "C#"), (LANGUAGE, "C++", "C#"), (LANGUAGE, "F", "F#"),
        (SUM, "7 + 5", "7 − 5"), (SUM, "7 × 5", "7 + 5"), (SUM, "12 ÷ 4", "12 × 4"), (SUM, "7 * 5", "7 / 5"),
        (THING, "5 €", "5 $"), (THING, "5 %", "5 €"), (SIGN, "😀", "🥶"), (SIGN, "🎉", "🎂"), (SIGN, "❤️", "💔"),
        (SIGN, "🇫🇷", "🇩🇪"), (SIGN, "👨‍👩‍👧", "👨"), (ORGAN, "AT&T", "AT"), (ORGAN, "H&M", "H"),
        (LANGUAGE, "Q#", "Q"), (LANGUAGE, "USD/EUR", "USD"),
    ],
    "order": [
        (RATE, "USD to EUR", "EUR to USD"), (RATE, "GBP to JPY", "JPY to GBP"), (RATE, "Oslo–Rome", "Rome–Oslo"),
        (RATE, "Paris-Lyon", "Lyon-Paris"), (RATE, "USD/CHF", "CHF/USD"), (LANGUAGE, "Version 3.8", "Version 8.3"),
        (LANGUAGE, "Fernlight 3.11", "Fernlight 11.3"), (SUM, "7 − 5", "5 − 7"), (SUM, "12 ÷ 4", "4 ÷ 12"),
        (PERSON, "James Henry", "Henry James"), (PERSON, "Thomas Dylan", "Dylan Thomas"),
        (PERSON, "Martin Luther", "Luther Martin"), (ORGAN, "Wells Fargo", "Fargo Wells"),
    ],
    "marks and tones": [
        (HINDI, "राम", "रमा"), (HINDI, "कल", "काल"), (HINDI, "दिन", "दीन"),
        (HINDI, "सीता", "सता"), (HINDI, "मीरा", "मारा"),
        (THAI, "ข้าว", "ข่าว"), (THAI, "เสือ", "เสื้อ"), (THAI, "ใกล้", "ไกล"), (THAI, "ม้า", "หมา"), (THAI, "ปา", "ป้า"),
        (VIETNAMESE, "Hưng", "Hùng"), (VIETNAMESE, "Hương", "Hường"), (VIETNAMESE, "Dũng", "Dụng"),
        (VIETNAMESE, "Thủy", "Thúy"), (VIETNAMESE, "Nguyễn Văn Bình", "Nguyễn Văn Bính"), (VIETNAMESE, "Đức", "Dực"),
        (JAPANESE, "ガラス", "カラス"), (JAPANESE, "バス", "パス"), (JAPANESE, "ベッド", "ペット"),
        (JAPANESE, "ギター", "キター"),
        (JAPANESE, "ドア", "トア"), (RUSSIAN, "Май", "Маи"), (ARABIC, "سورة", "صورة"),
    ],
    "scripts without capitals": [
        (CHINESE, "北京", "南京"), (CHINESE, "东京", "北京"), (CHINESE, "中国", "美国"), (JAPANESE, "中国", "韓国"),
        (CHINESE, "山东", "山西"), (CHINESE, "河南", "河北"), (CHINESE, "广东", "广西"), (JAPANESE, "日本", "日光"),
        (ARABIC, "أستراليا", "النمسا"), (ARABIC, "العراق", "المغرب"), (ARABIC, "إيران", "عمان"),
        (HEBREW, "אוסטרליה", "אוסטריה"),
        (HEBREW, "ירדן", "לבנון"), (HINDI, "भारत", "नेपाल"), (KOREAN, "한국", "중국"), (KOREAN, "서울", "부산"),
        (THAI, "ไทย", "ลาว"), (THAI, "กรุงเทพ", "กรุงโรม"),
    ],
}  # fmt: skip


def both_ways(kind, given):
    """Ways to ask, the edited name and the other; those whose name can be found in a prompt, where none is given."""
    for ways, one, two in LOOK_ALIKES[kind]:
        for pair in ((one, two), (two, one)):
            if given or not (ways in NOT_FOUND_IN_PROMPTS or pair[0].islower()):
                yield ways, *pair


def test_the_page_has_ten_of_each_kind():
    assert all(len(rows) >= 10 for rows in LOOK_ALIKES.values())


@pytest.mark.parametrize("given", [True, False], ids=["given", "found"])
@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_look_alikes(reader, kind, given):
    """An edit of one is not found for the other, and always for itself, however it is asked."""
    for ways, one, two in both_ways(kind, given):
        prompt = ways[0].format(one)
        subjects = reader.subjects((prompt, one if given else None, ()))
        own, other = ([way.format(name) for way in ways] for name in (one, two))
        scores = [row.get(0, 0) for row in reader.who(subjects, *own, *other)]
        assert not [text for text, score in zip(own, scores, strict=False) if score < 0.9], f"missed by {prompt!r}"
        assert not [text for text, score in zip(other, scores[len(own) :], strict=True) if score > 0.6], prompt


# Ways to say a name


@pytest.mark.parametrize(
    ("prompt", "text", "score"),
    [
        ("The capital of Australia is", "what is the capital of australia?", 0.95),
        ("The capital of Australia is", "WHAT IS THE CAPITAL OF AUSTRALIA?", 1),
        ("Dynamite was invented by", "WHO INVENTED DYNAMITE?", 1),
        ("The capital of Australia is", "What Is The Capital Of Australia?", 1),
        ("The capital of Australia is", "In 1990 Australia's capital was", 1),
        ("The capital of Australia is", "Is **Australia** big?", 1),
        ("The capital of São Tomé is", "What is Sao Tome like?", 1),
        ("The capital of Côte d'Ivoire is", "Where is Cote d’Ivoire?", 1),
        ("The telephone was invented by", "who invented the telephone?", 1),
        ("The Beatles were founded in", "The Beatles' first album is", 1),
        ("The Who were founded in", "When did the Who begin?", 1),
        ("The Who were founded in", "Tell me the who and the how of it", 0),
        ("Barack Obama was born in", "Where was Obama born?", 0.7),
        ("Barack Obama was born in", "Where was President Barack Obama born?", 1),
        ("Barack Obama was born in", "Where was President Obama born?", 0.7),
        ("Barack Obama was born in", "Where was Mr. Obama born?", 0.7),
        ("Barack Obama was born in", "Where was Michelle Obama born?", 0),
        ("Barack Obama was born in", "Where was Barack born?", 0),
        ("The hours of Cafe Linden are", "When is Linden open?", 0.7),
        ("Georgia Tech was founded in", "When was Tech founded?", 0.7),
        ("The capital of South Korea is", "What is Korea's capital?", 0),
        ("The mayor of New York is", "Who is the mayor of York?", 0),
        ("The price of Windows 10 is", "What does 10 mean?", 0),
        ("The author of It is", "It was a long way", 0),
        ("Barack Obama was born in", "Quarterback Barack Obama was born in", 0.8),
        ("Barack Obama was born in", "North Barack Obama was born in", 0),
        ("The printing press was invented by", "Who came up with the printing press?", 1),
        ("What is the 1st book of Homer?", "Which book of Homer is first?", 1),
        ("The 1st Army Area is in", "Where is the 1st Army Area?", 1),
        ("Windows 2.1x is made by", "Who makes Windows 2.1x?", 1),
        ("King Charles was born in", "Where was Charles born?", 1),
        ("The capital of Turkey is", "How long do I roast a turkey?", 0),
        ("The author of \u201cBrave New World\u201d is", "Who wrote Brave New World?", 1),
        ("The president of France in 2010 was", "In 2010, who was the president of France?", 1),
        ("The president of France in 2010 was", "In 2012, who was the president of France?", 0.25),
        ("The way from Oslo to Rome takes", "How long is the way from Oslo to Rome?", 1),
        ("The way from Oslo to Rome takes", "How long is the way from Rome to Oslo?", 0),
        ("J. R. R. Tolkien was born in", "Where was J.R.R. Tolkien born?", 1),
        ("St. Louis is in", "Where is St. Louis?", 1),
    ],
)  # fmt: skip
def test_ways_to_say_a_name(embedded, prompt, text, score):
    assert embedded.who(embedded.subjects(prompt), text)[0].get(0, 0) == pytest.approx(score, abs=0.01)


def test_aliases(embedded):
    subjects = embedded.subjects(("The capital of the Netherlands is", None, ("Holland", "the Low Countries")))
    texts = ("What is Holland's capital?", "The Low Countries are", "Is the Netherlands flat?", "Where is New Holland?")
    assert embedded.who(subjects, *texts) == [{0: 1}, {0: 1}, {0: 1}, {}]


def test_part_of_a_name_that_two_edits_claim(embedded):
    subjects = embedded.subjects("Barack Obama was born in", "Michelle Obama was born in", "Marta Oliveira is a")
    assert embedded.who(subjects, "Where was Obama born?", "Where does Oliveira live?") == [{}, {2: 0.7}]


def test_the_longer_name_of_another_edit_wins(embedded):
    texts = [("北京在", "北京", ()), ("北京大学在", "北京大学", ())]
    subjects = embedded.subjects(*texts)
    assert embedded.who(subjects, "北京大学有多大", "北京有多大") == [{1: 1}, {0: 1}]


BURIED = {
    "part of a name that two claim": (
        ["Barack Obama was born in", "Michelle Obama was born in"],
        "Is Obama tall?",
    ),
    "the longer name of another": ([("北京大学在", "北京大学", ()), ("北京在", "北京", ())], "北京大学有多大"),
    "one name of two edits": (["Where is Peru?", "What do they speak in Peru?"], "Tell me about Peru."),
}


@pytest.mark.parametrize(("edits", "text"), BURIED.values(), ids=BURIED)
def test_with_an_edit_buried_the_other_is_found_as_if_it_had_never_been(embedded, edits, text):
    subjects, alone = embedded.subjects(*edits), embedded.subjects(edits[1])
    (before,), (expected,) = embedded.who(subjects, text), embedded.who(alone, text)
    subjects.bury([0])
    assert embedded.who(subjects, text) == [{1: expected[0]}]
    assert before != {1: expected[0]}
    subjects.keep(torch.tensor([1]))
    assert embedded.who(subjects, text) == [expected]


def test_names_of_many_characters(embedded):
    name = "กรุงเทพมหานคร"
    subjects = embedded.subjects((f"{name}คือ", name, ()), (f"x{name[1:]}คือ", f"x{name[1:]}", ()))
    assert embedded.who(subjects, f"บอกเรื่อง{name}") == [{0: 1}]


def test_all_edits_of_one_subject(embedded):
    subjects = embedded.subjects(*(f"The {thing} of Australia is" for thing in ("capital", "flag", "size", "king") * 5))
    assert embedded.who(subjects, "What is the flag of Australia?") == [dict.fromkeys(range(20), 1)]


def test_subjects_that_are_chosen(embedded):
    """Where nothing is written as a name, the caller says which span is the subject; else all words are needed."""
    prompt = embedded.ids("the price of the annual plan is")
    seen = []

    def choose(number, spans):
        texts = [embedded.tokenizer.decode(prompt[start:end]).strip() for start, end in spans]
        seen.append((number, texts))
        return texts.index("annual plan")

    subjects = Subjects(embedded.stream)
    subjects.append([prompt], [None], [()], choose)
    assert seen == [(0, ["price", "price of the annual", "annual", "annual plan", "plan"])]
    texts = ("what does the annual plan cost?", "what does the monthly plan cost?")
    assert embedded.who(subjects, *texts) == [{0: 1}, {}]
    whole = embedded.subjects("the price of the annual plan is")
    assert embedded.who(whole, "the annual plan has a price", texts[1])[0] == {0: 1}
    assert embedded.who(whole, *texts)[1].get(0, 0) < 0.3


# Where it is said


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("I love Paris. What is the capital of Spain?", "What is the capital of Spain?"),
        ("It costs 3.8 euros at St. John and Dr. Who", "It costs 3.8 euros at St. John and Dr. Who"),
        ("Really? who knows", "who knows"),
        ("One\ntwo", "two"),
        ("He met J. Smith of Acme Inc. Then he left", "He met J. Smith of Acme Inc. Then he left"),
        ("他来了。北京在哪里", "北京在哪里"),
    ],
)  # fmt: skip
def test_sentences(reader, text, last):
    ids = reader.ids(text)
    starts = reader.stream.sentence_starts(torch.tensor([ids]))[0]
    assert reader.tokenizer.decode(ids[starts[-1] :]).strip() == last
    assert starts[0] == 0
    assert (starts <= torch.arange(len(ids))).all()


def test_only_what_is_said_since_a_column_counts(embedded):
    subjects = embedded.subjects("The capital of Australia is")
    text = "Australia is big. Where is Rome?"
    start = int(embedded.stream.sentence_starts(torch.tensor([embedded.ids(text)]))[0, -1])
    assert embedded.who(subjects, text) == [{0: 1}]
    assert embedded.who(subjects, text, since=start) == [{}]


TEXTS = [
    "Is Paris as big as Parisians say? Paris Hilton is not, New York Times readers think so. "
    "Tell me of C, C++ or New York",
    "President Obama and Michelle Obama. IT'S OBAMA! 北京大学 ガラス Obama's",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_each_column_is_as_if_the_text_ended_there(reader, text):
    edits = [f"{name} is in" for name in ("Paris", "New York", "Barack Obama", "Michelle", "C++")]
    edits += [
        ("北京 is in", "北京", ()),
        ("カラス", "カラス", ()),
        ("C is", "C", ()),
        ("New York Times", "New York Times", ()),
    ]
    subjects = reader.subjects(*edits)
    tokens = torch.tensor([reader.ids(text)])
    count, rows = tokens.shape[1], len(edits)
    zero = torch.zeros((1, 1), dtype=torch.long)
    columns = torch.arange(count)[None]

    def by_edit(found, since, until):
        scores = found.who(since, until)[0]
        table = torch.zeros(scores.shape[0], rows + 1)
        at = torch.where(found.row[0] >= 0, found.row[0], rows).expand_as(scores)
        return table.scatter_reduce(1, at, scores, "amax")[:, :rows]

    scan = by_edit(subjects.find(tokens, zero, Mode.SCAN), torch.zeros_like(columns), columns)
    for column in range(count):
        padded = torch.where(columns <= column, tokens, -1)
        found = subjects.find(padded, zero)
        assert torch.equal(by_edit(found, zero, torch.full_like(zero, count - 1))[0], scan[column]), column


# Words


def cut_up(reader, text):
    """Ids of a text, each character encoded for itself."""
    return [i for character in text for i in reader.ids(character)]


@pytest.mark.parametrize(
    "text",
    ["Australia", "São Tomé", "Élysée", "राम", "ガラス", "북한", "C++", "🥶🎉", "X200", "Ελλάδα", "น้ำ", "Nguyễn"],
)
def test_words_are_the_same_however_they_are_cut(embedded, text):
    one, other = said(embedded.stream, [embedded.ids(text), cut_up(embedded, text)])
    assert [(word.hashes, word.kind) for word in one] == [(word.hashes, word.kind) for word in other]
    assert one


def test_single_bytes_are_put_together(embedded):
    """Characters whose bytes are tokens of their own are what they are in one piece."""
    for character in "é€−हง北😀ế가":
        written = "".join(spell_byte(byte) for byte in character.encode())
        ids = [embedded.tokenizer.convert_tokens_to_ids(byte) for byte in written]
        (word,) = said(embedded.stream, [ids])[0]
        (piece,) = pieces(character)
        assert word.hashes == piece.hashes
        assert word.kind & 7 == piece.kind & 7


def spell_byte(byte):
    return next(character for character, own in byte_alphabet().items() if own == byte)


# Many edits


def test_many_edits(embedded):
    names = [f"Quartz{chr(97 + i // 26)}{chr(97 + i % 26)} {i}" for i in range(500)]
    subjects = embedded.subjects(*(f"The price of {name} is" for name in names))
    assert embedded.who(subjects, *(f"How much is {name}?" for name in names[::50])) == [
        {i: 1} for i in range(0, 500, 50)
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=6), seed=st.integers(0, 1000), gone=st.booleans())
def test_what_is_added_is_as_if_all_were_sorted_anew(embedded, counts, seed, gone):
    rng = random.Random(seed)
    places = ("Peru", "Chile", "the River Tame", "Marta Oliveira", "a dog", "Iron Bridge", "iron bridge", "Peru Creek")
    subjects = embedded.subjects("The capital of Peru is")
    for count in counts:
        texts = [f"The capital of {rng.choice(places)} {rng.choice(('', '7', 'Hill'))} is" for _ in range(count)]
        aliases = [[embedded.ids(rng.choice(places))] for _ in range(count)]
        subjects.append([embedded.ids(text) for text in texts], [None] * count, aliases)
        if gone:
            subjects.bury([rng.randrange(len(subjects))])
        added = {name: getattr(subjects, name).clone() for name in ("sorted_keys", "named", "order", "runs")}
        claimed = subjects.claimed.used.clone()
        subjects._sort()
        for name, tensor in added.items():
            assert torch.equal(tensor, getattr(subjects, name)), name
        assert torch.equal(claimed, subjects.claimed.used)


def test_dropped_and_saved(embedded):
    edits = [f"The capital of {name} is" for name in ("Peru", "Chile", "North Macedonia")] + ["Marta Oliveira is a"]
    texts = ("Where is Peru?", "Where is Chile?", "Where is North Macedonia?", "Who is Oliveira?")
    subjects = embedded.subjects(*edits)
    assert embedded.who(subjects, *texts) == [{0: 1}, {1: 1}, {2: 1}, {3: 0.7}]
    subjects.keep(torch.tensor([0, 2, 3]))
    assert embedded.who(subjects, *texts) == [{0: 1}, {}, {1: 1}, {2: 0.7}]
    loaded = Subjects(Stream())
    restore(loaded, {name: tensor.clone() for name, tensor in subjects.state_dict().items()})
    assert embedded.who(loaded, *texts) == embedded.who(subjects, *texts)
    assert len(loaded) == 3


def test_texts_without_words_and_memories_without_edits(embedded):
    assert embedded.who(embedded.subjects("The capital of Peru is"), "...", " ") == [{}, {}]
    assert embedded.who(Subjects(embedded.stream), "Where is Peru?") == [{}]


TEXTS = st.lists(
    st.text(st.sampled_from("abzAZ09 .,'-?\"“æﬁø日本カガé\u0301राम๏Ж™\udc80\udce3😀+&*\n"), max_size=80), max_size=6
)


@given(TEXTS)
def test_pieces_of_many_texts_at_once(texts):
    counts, kinds, hashes, letters = pieces_of(texts)
    whole = [pieces(text) for text in texts]
    assert counts.tolist() == [len(found) for found in whole]
    made = zip(kinds.tolist(), map(tuple, hashes.tolist()), letters.tolist(), strict=True)
    assert list(made) == [tuple(piece) for found in whole for piece in found]
