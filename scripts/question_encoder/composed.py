"""Relations composed of a word and a question: who, when, where, why, how, for whom; the whole and its part.

What is asked must not drown in what it is about: of texts with the same verb or noun each question is another relation.
"""

from random import Random

from batches import Bank
from relations import Relation

# past tense and participle where they differ, and the plain form
VERBS = (
    "built/build|designed/design|discovered/discover|published/publish|bought/buy|sold/sell|painted/paint|opened/open|"
    "closed/close|destroyed/destroy|renovated/renovate|launched/launch|produced/produce|recorded/record|filmed/film|"
    "translated/translate|edited/edit|printed/print|banned/ban|approved/approve|rejected/reject|signed/sign|"
    "written,wrote/write|drawn,drew/draw|stolen,stole/steal|found/find|lost/lose|won/win|made/make|sent/send|"
    "repaired/repair|tested/test|installed/install|removed/remove|replaced/replace|renamed/rename|moved/move|"
    "announced/announce|introduced/introduce|developed/develop|manufactured/manufacture|assembled/assemble|"
    "delivered/deliver|ordered/order|packed/pack|imported/import|exported/export|planted/plant|harvested/harvest|"
    "raised/raise|trained/train|hired/hire|dismissed/dismiss|promoted/promote|elected/elect|appointed/appoint|"
    "nominated/nominate|arrested/arrest|released/release|attacked/attack|defended/defend|occupied/occupy|"
    "liberated/liberate|conquered/conquer|besieged/besiege|defeated/defeat|crowned/crown|buried/bury|baptised/baptise|"
    "educated/educate|adopted/adopt|rescued/rescue|treated/treat|diagnosed/diagnose|vaccinated/vaccinate|"
    "photographed/photograph|exhibited/exhibit|restored/restore|donated/donate|inherited/inherit|rented/rent|"
    "leased/lease|insured/insure|taxed/tax|funded/fund|sponsored/sponsor|financed/finance|audited/audit|merged/merge|"
    "acquired/acquire|dissolved/dissolve|licensed/license|patented/patent|copied/copy|deleted/delete|archived/archive|"
    "encrypted/encrypt|deployed/deploy|reviewed/review|measured/measure|mapped/map|explored/explore|visited/visit|"
    "crossed/cross|climbed/climb|flooded/flood|evacuated/evacuate|rebuilt/rebuild|demolished/demolish|widened/widen|"
    "electrified/electrify|inspected/inspect|certified/certify|graded/grade|performed/perform|staged/stage|"
    "broadcast/broadcast|dubbed/dub|reviewed/review|illustrated/illustrate|dedicated/dedicate|awarded/award|"
    "sculpted/sculpt|carved/carve|woven,wove/weave|brewed/brew|distilled/distil|baked/bake|served/serve|tasted/taste|"
    "mixed/mix|named/name|described/describe|classified/classify|observed/observe|predicted/predict|proved/prove|"
    "measured/measure|isolated/isolate|cloned/clone|scheduled/schedule|cancelled/cancel|postponed/postpone"
).split("|")
ASKED = {
    "who": "X was {p} by;Who {t} X?;Who was X {p} by?;By whom was X {p}?;The person who {t} X was;The one who {t} X is;"
    "X was {p} by a person named;Who is it that {t} X?;It was X that was {p} by;Name whoever {t} X",
    "when": "When was X {p}?;X was {p} in the year;In what year was X {p}?;In which year was X {p}?;"
    "What year was X {p}?;The year in which X was {p} is;The date on which X was {p} is;On what date was X {p}?;"
    "How long ago was X {p}? It was in;X got {p} back in the year;When did somebody {b} X?;X has been {p} since;"
    "The year when X was {p}:;The time at which X was {p} is",
    "where": "Where was X {p}?;X was {p} in the city of;In which city was X {p}?;In what country was X {p}?;"
    "The place where X was {p} is;X was {p} at a place called;What is the place where X was {p}?;"
    "Where did they {b} X?;The town in which X was {p} is;In what place was X {p}?",
    "why": "Why was X {p}?;X was {p} because;The reason why X was {p} is;What was the reason that X was {p}?;"
    "For what reason was X {p}?;Why did they {b} X?;What caused X to be {p}?;X was {p} in order to",
    "with": "What was X {p} with?;X was {p} with the help of;X was {p} using;What was used to {b} X?;"
    "How was X {p}?;By what means was X {p}?;The method by which X was {p} is",
    "for": "Whom was X {p} for?;X was {p} for;For whom was X {p}?;The person for whom X was {p} is;"
    "Who got X {p} for them?",
    "object": "What has X {p}?;What did X {b}?;The thing that X {t} was;X itself {t} the;What was {p} by X?;"
    "What is it that X {t}?;Name what X {t}",
    "times": "How often was X {p}?;How many times has X been {p}?;The number of times X was {p} is;"
    "X was {p} as many times as",
}  # fmt: skip
ROLES = (
    "director|chairman|mayor|coach|captain|governor|manager|secretary|treasurer|editor|principal|dean|bishop|ambassador|"
    "prime minister|vice chair|chief engineer|owner|sponsor|landlord|leader|head|speaker|commander|conductor|curator|"
    "architect|lawyer|auditor|doctor|patron|champion|king|queen|founder|spokesperson|supervisor|deputy|trainer|nurse"
).split("|")
WHOLES = (
    "football club|national bank|parliament|hospital|airport|youth wing|orchestra|university|library|museum|theatre|"
    "police|army|navy|supreme court|main station|cathedral|zoo|harbour|newspaper|television channel|art school|"
    "research centre|sales department|legal team|branch office|subsidiary|parent company|fan club|opera house|"
    "fire brigade|chamber of commerce|stock exchange|food bank|support team|factory|warehouse|training centre|"
    "capital city|largest city|northern province|district council|school board|city council|cricket team"
).split("|")
PART = {
    "role": "The {r} of X is;Who is the {r} of X?;X's {r} is;Who is X's {r}?;Who serves as {r} of X?;"
    "The person who is {r} of X is;X's current {r} is;Name the {r} of X;X has as its {r};The name of X's {r} is",
    "role of the part": "The {r} of the {w} of X is;Who is the {r} of X's {w}?;X's {w} has as its {r};"
    "Who is the {r} of the {w} of X?;The {w} of X is led by its {r};Name the {r} of the {w} in X",
    "place of the part": "The {w} of X is in;Where is the {w} of X?;X's {w} is located in;In which street is X's {w}?;"
    "Where can I find the {w} of X?",
    "name of the part": "The {w} of X is called;What is X's {w} called?;What is the name of the {w} of X?;"
    "X has a {w} named;The name of X's {w} is",
    "birth": "The {r} of X was born in;Where was the {r} of X born?;X's {r} comes from;Where is X's {r} from?",
    "age": "How old is the {r} of X?;The age of X's {r} is;When was the {r} of X born?;X's {r} was born in the year",
    "pay": "What does the {r} of X earn?;The salary of X's {r} is;How much is X's {r} paid?",
    "count": "How many people work at the {w} of X?;X's {w} has a staff of;The number of people in the {w} of X is",
    "visit": "The {r} of X went to;Last week X's {r} visited;The {r} of X came back from;X's {r} said that",
}  # fmt: skip
PARTS = 400


class Composed(Bank):
    """Composed relations, those with the same verb or noun together."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        luck, relations, members = Random(2), [], []
        self.groups: list[list[int]] = []
        for verb in VERBS:
            forms, plain = verb.split("/")
            words = {"p": forms.split(",")[0], "t": forms.split(",")[-1], "b": plain}
            self.groups.append(self._group(verb, ASKED, words, relations, members))
        for _ in range(PARTS):
            words = {"r": luck.choice(ROLES), "w": luck.choice(WHOLES)}
            self.groups.append(self._group("/".join(words.values()), PART, words, relations, members))
        super().__init__(relations, members, [[] for _ in members])

    def _group(
        self,
        name: str,
        forms: dict[str, str],
        words: dict[str, str],
        relations: list[Relation],
        members: list[list[int]],
    ) -> list[int]:
        first = len(relations)
        for asked, texts in forms.items():
            own = [text.format(**words) for text in texts.split(";")]
            relations.append(Relation(f"{name} {asked}", "thing", own))
            members.append(list(range(len(self.lines), len(self.lines) + len(own))))
            self.lines.extend(own)
        return list(range(first, len(relations)))

    def together(self, luck: Random, groups: int, texts: int) -> tuple[list[int], list[int]]:
        """Numbers of texts and relations of a batch of whole groups."""
        numbers, labels = [], []
        for group in luck.sample(self.groups, groups):
            for relation in group:
                mine = self.members[relation]
                picked = luck.sample(mine, min(texts, len(mine)))
                numbers += picked
                labels += [relation] * len(picked)
        return numbers, labels
