"""Invented people: names that no reader knows, with facts drawn from fixed lists by a seed."""

import random

FIRST_NAMES = (
    "Adela Bruno Celia Dario Edda Fabian Greta Hanno Ilse Joris Karin Leander Mira Nils Odette Pavel "
    "Quirin Rhea Silvan Thea Ursin Vera Wanda Xenia Yorick Zita Alwin Berta Cosima Detlef Elmar Frida"
).split()
ONSETS = "Bral Cor Dun El Fen Gar Hol Jar Kel Lor Mar Nor Os Pel Quen Ras Sel Tor Ul Vas Wen Yar Zel".split()
MIDDLES = "a e i o u an el in or".split()
CODAS = "bek dal fort gren holm lund mont nack rick stad thal veld".split()

ANSWERS = {
    "birthplace": (
        "Aldery|Brackmoor|Castelor|Dunhaven|Eastmere|Fallowby|Grimsel|Harrowgate|Inverdale|Jorvik|Kestrel Bay|"
        "Larkfield|Millbrook|Northam|Oakhurst|Port Selwyn|Quayside|Ravenna|Stonebridge|Tarnow|Underhill|"
        "Vellmar|Westerly|Yarrow|Zandvoort"
    ).split("|"),
    "profession": (
        "architect|baker|carpenter|dentist|engineer|farmer|gardener|historian|interpreter|judge|librarian|"
        "mathematician|nurse|optician|painter|plumber|sailor|surgeon|teacher|tailor|veterinarian|watchmaker"
    ).split("|"),
    "instrument": (
        "accordion|bassoon|cello|clarinet|double bass|flute|guitar|harp|horn|lute|mandolin|oboe|organ|piano|"
        "piccolo|saxophone|trombone|trumpet|tuba|viola|violin|zither"
    ).split("|"),
    "employer": (
        "Acorn Mills|Blue Harbor|Crown Optics|Delta Freight|Evergreen Foods|Falcon Air|Granite Bank|"
        "Hillside Press|Iron Gate|Juniper Labs|Kite Telecom|Lantern Films|Maple Motors|Nimbus Energy|"
        "Orchid Pharma|Pioneer Rail|Quartz Systems|River Glass|Summit Sports|Tidal Power"
    ).split("|"),
    "language_spoken": (
        "Arabic|Basque|Catalan|Danish|English|Finnish|German|Hindi|Irish|Japanese|Korean|Latvian|Mongolian|"
        "Norwegian|Polish|Russian|Spanish|Turkish|Urdu|Welsh"
    ).split("|"),
}


def invent(count: int, seed: int) -> list[tuple[str, str, str]]:
    """`count` people with one fact for each relation of `ANSWERS`, as (subject, relation, answer)."""
    rng = random.Random(seed)
    surnames = [onset + middle + coda for onset in ONSETS for middle in MIDDLES for coda in CODAS]
    facts = []
    for surname in rng.sample(surnames, count):
        name = f"{rng.choice(FIRST_NAMES)} {surname}"
        facts += [(name, relation, rng.choice(answers)) for relation, answers in ANSWERS.items()]
    return facts
