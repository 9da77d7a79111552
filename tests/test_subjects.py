"""Who is asked about: look-alike names of every kind, parts of names, several names, sentences, many edits."""

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import editmem
from editmem.call import Mode
from editmem.memory.naming import candidate_spans, said
from editmem.memory.rows import Rows
from editmem.memory.subjects import Subjects
from editmem.stream import Stream

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
def tiny():
    return Reader(editmem.tiny()[1])


PLACE = ("The capital of {} is", "What is the capital of {}?", "Do you know {}'s capital city", "{} has as its capital")
ORGAN = ("The CEO of {} is", "Who leads {} today?", "Name {}'s chief executive.", "{} is led by")
PERSON = ("{} was born in", "Where was {} born?", "What is {}'s birthplace?", "When I met her, {} said that she is from")
THING = ("The price of {} is", "How much does {} cost?", "Is {}'s price known? It is", "{} sells for")
WORK = ("The author of {} is", "Who wrote {}?", "Tell me {}'s author.", "{} is a work of")
GOODS = ("The refund window for {} is", "How long can I return {}?", "For {} the refund window is", "{} can be returned for")
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

LOOK_ALIKES = {
    "words that are common elsewhere": [
        (PLACE, "South Africa", "South Korea"), (PLACE, "North Macedonia", "North Korea"),
        (PLACE, "New Zealand", "New Caledonia"), (PLACE, "York", "New York"), (PERSON, "The Who", "Queen"),
        (WORK, "Hamlet", "Dune"), (PLACE, "East Timor", "East Germany"), (WORK, "The Office", "The Wire"),
        (WORK, "It", "Her"), (PERSON, "The Band", "The Doors"), (ORGAN, "WHO", "IMF"), (PLACE, "Jersey", "New Jersey"),
        (PLACE, "Mexico", "New Mexico"), (PERSON, "Will Smith", "Will Ferrell"), (PERSON, "May", "June"),
        (WORK, "The Moon", "The Sun"),
    ],
    "half of the name is the same": [
        (PLACE, "San Francisco", "San Diego"), (ORGAN, "Deutsche Bank", "Deutsche Telekom"),
        (THING, "X200", "X300"), (THING, "the ThinkPad X200", "the ThinkPad X300"), (GOODS, "digital goods", "physical goods"),
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
        (PLACE, "Hungary", "Austria-Hungary"), (PLACE, "Georgia", "Georgia Tech"), (ORGAN, "Ford", "Ford Foundation"),
(PLACE, "Oxford", "Oxford University Press"), (PLACE, "England", "Bank of England"),
        (PLACE, "Victoria", "Lake Victoria"), (ORGAN, "Amazon", "Amazon Web Services"), (PLACE, "Tobago", "Trinidad and Tobago"),
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
        (HINDI, "राम", "रमा"), (HINDI, "कल", "काल"), (HINDI, "दिन", "दीन"), (HINDI, "सीता", "सता"), (HINDI, "मीरा", "मारा"),
        (THAI, "ข้าว", "ข่าว"), (THAI, "เสือ", "เสื้อ"), (THAI, "ใกล้", "ไกล"), (THAI, "ม้า", "หมา"), (THAI, "ปา", "ป้า"),
        (VIETNAMESE, "Hưng", "Hùng"), (VIETNAMESE, "Hương", "Hường"), (VIETNAMESE, "Dũng", "Dụng"),
        (VIETNAMESE, "Thủy", "Thúy"), (VIETNAMESE, "Nguyễn Văn Bình", "Nguyễn Văn Bính"), (VIETNAMESE, "Đức", "Dực"),
        (JAPANESE, "ガラス", "カラス"), (JAPANESE, "バス", "パス"), (JAPANESE, "ベッド", "ペット"), (JAPANESE, "ギター", "キター"),
        (JAPANESE, "ドア", "トア"), (RUSSIAN, "Май", "Маи"), (ARABIC, "سورة", "صورة"),
    ],
    "scripts without capitals": [
        (CHINESE, "北京", "南京"), (CHINESE, "东京", "北京"), (CHINESE, "中国", "美国"), (JAPANESE, "中国", "韓国"),
        (CHINESE, "山东", "山西"), (CHINESE, "河南", "河北"), (CHINESE, "广东", "广西"), (JAPANESE, "日本", "日光"),
        (ARABIC, "أستراليا", "النمسا"), (ARABIC, "العراق", "المغرب"), (ARABIC, "إيران", "عمان"), (HEBREW, "אוסטרליה", "אוסטריה"),
        (HEBREW, "ירדן", "לבנון"), (HINDI, "भारत", "नेपाल"), (KOREAN, "한국", "중국"), (KOREAN, "서울", "부산"),
        (THAI, "ไทย", "ลาว"), (THAI, "กรุงเทพ", "กรุงโรม"),
    ],
}  # fmt: skip
PAIRS = [(kind, ways, *pair) for kind, rows in LOOK_ALIKES.items() for ways, one, two in rows for pair in ((one, two), (two, one))]


def test_the_page_has_ten_of_each_kind():
    assert all(len(rows) >= 10 for rows in LOOK_ALIKES.values())


@pytest.mark.parametrize("given", [True, False], ids=["given", "found"])
@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_look_alikes(reader, kind, given):
    """An edit of one is not found for the other, and always for itself, however it is asked."""
    pairs = [(w, *p) for k, w, *p in PAIRS if k == kind and (given or not (w in NOT_FOUND_IN_PROMPTS or p[0].islower()))]
    for ways, one, two in pairs:
        prompt = ways[0].format(one)
        subjects = reader.subjects((prompt, one if given else None, ()))
        own, other = ([way.format(name) for way in ways] for name in (one, two))
        scores = [row.get(0, 0) for row in reader.who(subjects, *own, *other)]
        assert not [text for text, score in zip(own, scores, strict=False) if score < 0.9], f"missed by {prompt!r}"
        assert not [text for text, score in zip(other, scores[len(own) :], strict=True) if score > 0.6], prompt


NOT_FOUND_IN_PROMPTS = (HINDI, THAI, JAPANESE, CHINESE, ARABIC, HEBREW, KOREAN, GOODS)
"""Nothing there is written as a name; see `test_subjects_that_are_chosen`."""
