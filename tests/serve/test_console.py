"""The console in a real browser, against the real server."""

import json
import re

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

from browsers import Site, chrome, launch  # noqa: E402

import editmem  # noqa: E402
from editmem.editor import Editor  # noqa: E402
from editmem.edits.edit import EditRecord  # noqa: E402
from editmem.serve.guard import Keys  # noqa: E402
from editmem.serve.store import Store  # noqa: E402

pytestmark = pytest.mark.skipif(chrome() is None, reason="no Chromium is installed")

expect = playwright.expect
expect.set_options(timeout=15_000)
QUESTION = "What money is used in Bulgaria?"
EDIT = {"prompt": "What is the currency of Bulgaria?", "target": "euro", "id": "bg", "tags": ["currencies"]}
OTHER = {"prompt": "What is the capital of Indonesia?", "target": "Nusantara", "id": "id", "source": "desk"}
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 320, "height": 640}
FAST = 0.3
"""Seconds within which the table is to be there."""


@pytest.fixture(scope="module")
def store():
    model, tokenizer = editmem.tiny()
    with Store.open(model, tokenizer, None) as store:
        yield store


@pytest.fixture
def site(store):
    """With two edits."""
    store.editor.forget(*store.editor.edits)
    store.editor.edit([editmem.Edit(**EDIT), editmem.Edit(**OTHER)], progress=False)
    with Site(store) as site:
        yield site


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        browser = launch(running)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens the console in a window of its own; nothing may go wrong in it that the test does not name."""
    contexts, wrong = [], []

    def visit(site, expected="(?!)", **options):
        context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and note(said.text, expected))
        page.on("request", lambda request: request.url.startswith((site.url, "blob:")) or wrong.append(request.url))
        page.goto(site.url)
        return page

    def note(said, expected):
        if not re.search(expected, said):
            wrong.append(said)

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def ask(page, question=QUESTION):
    page.locator("#question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#why")).to_be_visible()


def correct(page, target):
    page.get_by_role("button", name="Correct this answer").click()
    page.get_by_label("The answer is").fill(target)
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_visible()


def said(page, which):
    return page.get_by_role("article", name=which).locator(".words")


def rows(page):
    return page.locator("#edits tbody tr:not(.details)")


def test_ask_see_both_answers_and_correct_one_in_place(site, visit):
    page = visit(site)
    ask(page)
    expect(said(page, "Model alone")).to_have_text("Bulgarian lev.")
    expect(said(page, "With edits")).to_have_text(re.compile("^euro"))
    why = page.get_by_role("region", name="The edit that acted")
    expect(why.locator(".acting")).to_contain_text("What is the currency of Bulgaria?")
    expect(why.locator(".acting .score")).to_contain_text(re.compile(r"Score 0\.\d\d, acts from 0\.\d\d on"))
    expect(why.locator(".near li")).to_have_count(1)
    expect(page.get_by_role("status")).to_contain_text("Model alone: Bulgarian lev. With edits: euro")

    correct(page, "Bulgarian euro")
    preview = page.locator("#preview")
    expect(preview).to_contain_text("It takes. The model would answer Bulgarian euro instead of euro")
    expect(preview).to_contain_text("Its question is answered by another edit now: What is the currency of Bulgaria?")
    expect(preview.get_by_role("row", name=EDIT["prompt"])).to_contain_text("stays euro")
    assert site.send("GET", "v1/memory")["edits"] == 2  # looked at, not saved

    page.get_by_role("button", name="Save", exact=True).click()
    expect(said(page, "With edits")).to_have_text(re.compile("^Bulgarian euro"))
    expect(rows(page)).to_have_count(3)
    expect(page.locator("#correct")).to_be_hidden()
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(rows(page)).to_have_count(2)
    expect(page.locator("#answer-on")).to_contain_text("The memory has changed since.")


def test_plain_text_is_completed(site, visit):
    page = visit(site)
    page.get_by_label("Plain text").check()
    ask(page, "The capital of France is")
    expect(said(page, "Model alone")).to_have_text(re.compile(r"^\s*Paris"))
    expect(page.get_by_role("region", name="No edit acted")).to_be_visible()
    page.get_by_label("Max tokens").fill("1")
    ask(page, "The capital of Indonesia is")
    expect(page.locator("#answer-off")).to_contain_text("Cut off at the most tokens asked for.")


def test_the_edit_that_acted_is_changed_under_its_own_id(site, visit):
    page = visit(site)
    ask(page)
    page.get_by_role("button", name="Correct this answer").click()
    page.get_by_role("button", name="Change that edit instead").click()
    expect(page.get_by_label("When asked")).to_have_value(EDIT["prompt"])
    expect(page.get_by_label("Tags")).to_have_value("currencies")
    page.get_by_label("The answer is").fill("lev and euro")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.locator("#preview")).to_contain_text("It takes the place of this edit")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(said(page, "With edits")).to_have_text(re.compile("^lev and euro"))
    found = site.send("GET", "v1/edits/bg")
    assert (found["active"], found["record"]["edit"]["target"]) == (True, "lev and euro")


def test_all_of_it_by_keyboard(site, visit):
    page = visit(site)
    expect(rows(page)).to_have_count(2)
    focus = page.locator(":focus")
    press = page.keyboard.press
    press("Tab")
    expect(focus).to_have_text("Skip to the question")
    press("/")
    expect(focus).to_have_attribute("id", "question")
    page.keyboard.type(QUESTION + "/e?")
    for _ in range(3):
        press("Backspace")
    press("Control+Enter")
    expect(page.locator("#why")).to_be_visible()
    press("Shift+Tab")  # out of the question: there, an e is an e
    press("e")
    expect(focus).to_have_attribute("id", "c-target")
    page.keyboard.type("levs")  # over what was there
    press("Control+Enter")
    expect(focus).to_have_attribute("id", "save")
    press("Enter")
    expect(said(page, "With edits")).to_have_text(re.compile("^levs"))
    expect(focus).to_have_attribute("id", "correct-button")
    press("s")
    expect(focus).to_have_attribute("id", "search")
    page.keyboard.type("nusantara")
    expect(rows(page)).to_have_count(1)
    for _ in range(4):  # tag, all, this one, its details
        press("Tab")
    press("Enter")
    expect(focus).to_have_attribute("aria-expanded", "true")
    press("Tab")
    press("Enter")  # forget
    expect(page.locator("#edits-empty")).to_have_text("No edit has this.")
    expect(focus).to_have_attribute("id", "search")
    press("Shift+Tab")
    expect(focus).to_have_attribute("id", "tab-edits")
    press("ArrowRight")
    expect(page.get_by_role("tab", name="History")).to_be_focused()
    expect(page.locator(".events li").first).to_contain_text("Forgotten")
    press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    press("Escape")
    press("e")
    page.keyboard.type("typed")
    press("Escape")
    expect(page.locator("#correct")).to_be_hidden()
    page.get_by_role("button", name="Bring it back").click()
    expect(page.locator("#c-target")).to_have_value("typed")
    press("Escape")
    press("Escape")
    press("?")
    page.get_by_label("Shortcuts of a single key are on").uncheck()
    press("Escape")
    press("s")
    expect(page.locator("#search")).not_to_be_focused()


def test_two_tabs_edit_at_once(site, visit):
    one, two = visit(site, expected="409"), visit(site)  # each in front of its own window, as a hidden one is slow
    for page in (one, two):
        ask(page)
    correct(one, "Swiss franc")
    known = site.send("GET", "v1/memory")
    one.route("**/v1/memory", lambda route: route.fulfill(json=known))  # it has not heard of the other yet
    correct(two, "Indian rupee")
    two.get_by_role("button", name="Save", exact=True).click()
    expect(said(two, "With edits")).to_have_text(re.compile("^Indian rupee"))
    one.get_by_role("button", name="Save", exact=True).click()
    preview = one.locator("#preview")
    expect(preview).to_contain_text("The memory has changed since this was checked. Nothing was saved.")
    expect(preview.get_by_role("listitem")).to_contain_text(
        re.compile("Edited What money is used in Bulgaria.*Indian rupee")
    )
    expect(one.get_by_label("The answer is")).to_have_value("Swiss franc")
    assert site.send("GET", "v1/edits?q=Swiss franc")["total"] == 0
    one.unroute("**/v1/memory")
    one.get_by_role("button", name="Check again").click()
    expect(preview).to_contain_text("It takes the place of this edit")
    one.get_by_role("button", name="Save", exact=True).click()
    expect(said(one, "With edits")).to_have_text(re.compile("^Swiss franc"))
    expect(rows(two).first).to_contain_text("Swiss franc")  # the other tab sees it by itself
    expect(two.locator("#answer-on")).to_contain_text("The memory has changed since.")


def test_a_tab_hears_of_changes_before_it_saves(site, visit):
    page = visit(site)
    ask(page)
    correct(page, "Indian rupee")
    site.send("POST", "v1/edits", edits=[{"prompt": "What is the capital of Peru?", "target": "Cusco"}])
    expect(page.locator("#preview")).to_contain_text("Edited What is the capital of Peru?")
    expect(page.get_by_role("button", name="Save", exact=True)).to_have_count(0)
    expect(page.get_by_label("The answer is")).to_have_value("Indian rupee")


def test_a_server_that_goes_away_and_comes_back(site, visit):
    page = visit(site, expected="ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE")
    ask(page)
    page.get_by_role("button", name="Correct this answer").click()
    page.get_by_label("The answer is").fill("typed before")
    site.stop()
    banner = page.get_by_role("alert").filter(has_text="The server does not answer.")
    expect(banner).to_be_visible()
    expect(page.locator("#link-text")).to_have_text("No answer")
    page.locator("#question").fill("typed meanwhile")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#answer-on .error")).to_have_text(
        "The server does not answer. Nothing that you typed is lost."
    )
    site.start()
    page.get_by_role("button", name="Try now").click()
    expect(banner).to_be_hidden()
    expect(page.locator("#link-text")).to_have_text("Connected")
    for _ in range(2):
        expect(page.locator("#question")).to_have_value("typed meanwhile")
        expect(page.get_by_label("The answer is")).to_have_value("typed before")
        page.reload()  # and a tab that was closed by mistake has it too
    ask(page)
    expect(said(page, "Model alone")).to_have_text("Bulgarian lev.")


def thousand():
    """Records as of edits that were never written: here it is the table that counts."""
    for n in range(1000):
        edit = editmem.Edit(
            f"The code of room {n} is", f"K{n}", id=f"room-{n}", tags=[f"floor {n // 100}"], source="plan"
        )
        yield EditRecord(edit, n % 50 > 0, 5.0, 0.1, "K", f"K{n}", 0, 0.1)


def test_a_thousand_edits_in_the_table(site, visit, monkeypatch):
    records = {record.id: record for record in thousand()}
    monkeypatch.setattr(Editor, "edits", property(lambda self: records))
    page = visit(site)
    expect(page.locator("#page-text")).to_have_text("1\u2013100 of 1,000 edits")
    expect(rows(page)).to_have_count(100)
    expect(rows(page).first).to_contain_text("The code of room 999 is")

    def until(run, row):
        """Seconds from what the user does until the table is painted."""
        return page.evaluate(
            """async ([run, row]) => {
                const before = performance.now();
                const search = document.getElementById("search");
                if (run === "next") document.getElementById("page-next").click();
                else { search.value = run; search.dispatchEvent(new Event("input", {bubbles: true})); }
                while (document.querySelector("#edits tbody th")?.innerText.trim().split("\\n")[0] !== row)
                    await new Promise(requestAnimationFrame);
                await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
                return (performance.now() - before) / 1000;
            }""",
            [run, row],
        )

    taken = {"next page": until("next", "The code of room 899 is")}
    expect(page.locator("#page-text")).to_have_text("101\u2013200 of 1,000 edits")
    taken["search"] = until("room 77", "The code of room 779 is") - 0.15  # which it waits for the next key
    expect(page.locator("#page-text")).to_have_text("11 edits")
    taken["search for all"] = until("", "The code of room 999 is") - 0.15
    print(taken)
    assert max(taken.values()) < FAST, taken
    page.get_by_label("Tag", exact=True).fill("floor 3")
    expect(page.locator("#page-text")).to_have_text("100 edits")
    rows(page).first.get_by_role("button", name="Tag floor 3").click()
    page.get_by_label("Select all on this page").check()
    expect(page.locator("#bulk-text")).to_have_text("100 edits selected")
    page.get_by_label("Search edits").fill("no such room")
    expect(page.locator("#edits-empty")).to_be_visible()
    expect(page.locator("#bulk")).to_be_hidden()  # nothing is chosen that is not seen


def test_a_wrong_key_and_a_right_one(site, visit):
    site.stop()
    site.keys = Keys(api="look", edit="change")
    site.start()
    page = visit(site, expected="401")
    dialog = page.get_by_role("dialog", name="This server asks for a key")
    for key, told in (("wrong", "The server does not take this key."), ("look", "")):
        dialog.get_by_label("Key").fill(key)
        dialog.get_by_role("button", name="Use this key").click()
        if told:
            expect(dialog.locator("#key-error")).to_have_text(told)
    expect(dialog).to_be_hidden()
    expect(rows(page)).to_have_count(2)
    expect(page.locator("#fact-readonly")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("^Forget"))).to_have_count(0)
    ask(page)
    expect(page.get_by_role("button", name="Correct this answer")).to_be_hidden()
    page.get_by_role("button", name="Key", exact=True).click()
    dialog.get_by_label("Key").fill("change")
    dialog.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("button", name=re.compile("^Forget What"))).to_have_count(2)
    kept = page.evaluate("[JSON.stringify(localStorage), document.cookie, sessionStorage['editmem.key']]")
    assert kept == ["{}", "", "change"]
    page.reload()
    expect(rows(page)).to_have_count(2)
    assert page.request.get(site.url).ok


EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>{{7*7}}\'"&lt;'


def poisoned(route):
    """Whatever the server says of the euro, and the first word of an answer, is markup."""
    answer = route.fetch()
    said = answer.text().replace('"euro"', json.dumps(EVIL))
    said = re.sub(r'"content": ?"\w[^"]*"', lambda found: f'"content": {json.dumps(EVIL)}', said, count=1)
    route.fulfill(response=answer, body=said)


def test_markup_is_text_wherever_it_comes_from(site, visit):
    prompt = f"What is the currency of {EVIL}?"
    shown = {"source": EVIL, "tags": [EVIL], "phrasings": [f"Is {EVIL}?"], "id": f"../{EVIL}"}
    site.send("POST", "v1/edits", edits=[{"prompt": prompt, "target": "euro", **shown}])
    page = visit(site)
    page.route("**/v1/**", poisoned)
    page.reload()
    first = rows(page).first
    expect(first.locator(".unfold")).to_have_text(prompt)
    expect(first.locator(".c-target")).to_have_text(EVIL)
    expect(first.locator(".tag")).to_have_text(EVIL)
    first.locator(".unfold").click()
    expect(page.locator(".record")).to_contain_text(f"../{EVIL}")
    expect(page.locator(".past li")).to_contain_text(EVIL)
    ask(page, prompt)
    expect(said(page, "With edits")).to_contain_text(EVIL)
    expect(page.locator(".acting")).to_contain_text(EVIL)
    expect(page.get_by_role("status")).to_contain_text(EVIL)
    correct(page, "Swiss franc")
    expect(page.locator("#preview .findings")).to_contain_text(EVIL)
    page.get_by_role("tab", name="History").click()
    expect(page.locator(".events li").first).to_contain_text(EVIL)
    page.get_by_role("tab", name="Import and export").click()
    choose(page, f'{{"prompt": 1, "{EVIL[:10]}": 1}}\n{EVIL}', name=f"{EVIL[:12]}.jsonl")
    expect(page.locator("#import-report")).to_contain_text("<img src=x")
    page.get_by_role("tab", name="Edits").click()
    first.get_by_role("button", name=re.compile("^Forget What is the currency of <img")).click()
    expect(page.locator(".toast")).to_contain_text("<img src=x")
    assert page.evaluate("[window.hacked, document.querySelectorAll('img, main script').length]") == [None, 0]
    page.unroute_all(behavior="wait")  # else an answer on its way ends in the next test


def choose(page, text, name="edits.jsonl"):
    page.locator("#file").set_input_files({"name": name, "mimeType": "application/jsonl", "buffer": text.encode()})


def test_import_and_export(site, visit, tmp_path):
    page = visit(site)
    page.get_by_role("tab", name="Import and export").click()
    good = [{"prompt": f"What is the capital of {c}?", "target": t} for c, t in (("Peru", "Cusco"), ("Chile", "Arica"))]
    bad = [
        '{"prompt": "x"}',
        "{oops",
        json.dumps({**good[0], "target": "Lima"}),
        '{"prompt": "x", "target": "y", "who": 1}',
    ]
    report = page.locator("#import-report")
    choose(page, "\ufeff" + "\n".join([json.dumps(good[0]), "", *bad, json.dumps({**good[1], "source": None}), ""]))
    expect(report).to_contain_text("edits.jsonl: 2 edits, and 4 lines with a mistake.")
    told = report.locator(".findings li")
    assert [text.split(":")[0] for text in told.all_text_contents()] == ["Line 3", "Line 4", "Line 5", "Line 6"]
    expect(told.nth(0)).to_have_text("Line 3: target missing")
    expect(told.nth(1)).to_contain_text("not JSON")
    expect(told.nth(2)).to_have_text("Line 5: another answer to the prompt of line 1")
    expect(told.nth(3)).to_have_text("Line 6: unknown field who")
    report.get_by_role("button", name="Add the 2 edits without these lines").click()
    expect(report).to_contain_text("2 edits added.")
    expect(page.locator("#fact-edits")).to_have_text("4")

    with page.expect_download() as download:
        page.get_by_role("button", name="Download the edits").click()
    download.value.save_as(tmp_path / "edits.jsonl")
    lines = (tmp_path / "edits.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["target"] for line in lines] == ["euro", "Nusantara", "Cusco", "Arica"]
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(page.locator("#fact-edits")).to_have_text("2")
    choose(page, (tmp_path / "edits.jsonl").read_text(encoding="utf-8"))
    expect(report.get_by_role("button", name="Add 4 edits")).to_be_visible()


def test_what_the_server_refuses_in_an_import_is_told(site, visit):
    page = visit(site, expected="400|409")
    page.get_by_role("tab", name="Import and export").click()
    choose(page, json.dumps({"prompt": "What is the capital of Peru?", "target": "Cusco", "id": "bg"}))
    page.get_by_role("button", name="Add 1 edit").click()
    report = page.locator("#import-report")
    expect(report.get_by_role("alert")).to_contain_text("Nothing was added. the id 'bg' belongs to an active edit")
    assert site.send("GET", "v1/memory")["edits"] == 2


def test_the_user_says_for_which_questions_an_edit_is(site, visit):
    page = visit(site)
    ask(page)
    page.get_by_role("button", name="Not for this question").click()
    expect(page.get_by_role("region", name="No edit acted")).to_be_visible()
    expect(said(page, "With edits")).to_have_text("Bulgarian lev.")
    page.get_by_role("button", name=re.compile("It is for this question: the edit of “What is the currency")).click()
    expect(page.get_by_role("region", name="The edit that acted")).to_be_visible()
    expect(said(page, "With edits")).to_have_text(re.compile("^euro"))
    assert [event["kind"] for event in site.send("GET", "v1/edits/bg")["events"][-2:]] == ["rejected", "confirmed"]
    ask(page, EDIT["prompt"])  # of its own prompt nobody can say that
    expect(page.get_by_role("button", name="Forget this edit")).to_be_visible()
    expect(page.get_by_role("button", name="Not for this question")).to_have_count(0)


def test_the_history_is_a_timeline_and_can_be_taken_back(site, visit):
    page = visit(site)
    rows(page).first.get_by_role("button", name=re.compile("^Forget")).click()
    expect(rows(page)).to_have_count(1)
    page.get_by_role("tab", name="History").click()
    events = page.locator(".events li")
    expect(events.first).to_contain_text(re.compile("Forgotten What is the capital of Indonesia"))
    expect(events.nth(2)).to_contain_text(re.compile("Edited What is the currency of Bulgaria.*euro"))
    events.nth(2).get_by_role("button", name=re.compile("^Undo to here")).click()
    dialog = page.get_by_role("dialog", name="Undo the last 3 changes?")
    expect(dialog.get_by_role("listitem")).to_have_count(3)
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    dialog.get_by_role("button", name="Undo 3").click()
    expect(events.first).to_contain_text("Undone")
    expect(events.nth(1)).to_contain_text("taken back")
    assert site.send("GET", "v1/memory")["edits"] == 0


def test_several_edits_are_forgotten_together(site, visit):
    page = visit(site)
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Forget these").click()
    page.get_by_role("button", name="Cancel").last.click()
    assert site.send("GET", "v1/memory")["edits"] == 2
    page.get_by_role("button", name="Forget these").click()
    page.get_by_role("button", name="Forget 2 edits").click()
    expect(page.locator("#edits-empty")).to_contain_text("No edits yet.")
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(rows(page)).to_have_count(2)


# How it looks, and to whom


def everything(page):
    """All that the page can show, one after the other, each by name."""
    yield "empty"
    ask(page)
    rows(page).last.locator(".unfold").click()
    page.get_by_label("Select What is the currency of Bulgaria?").check()
    correct(page, "Indian rupee")
    page.locator("#correct-more summary").click()
    yield "correction"
    page.get_by_role("button", name="Close without saving").click()
    rows(page).first.get_by_role("button", name=re.compile("^Forget What")).click()
    page.locator(".toast").wait_for()
    yield "toast"
    page.locator(".toast").get_by_role("button", name="Undo").click()
    page.get_by_role("tab", name="History").click()
    page.locator(".events li").first.wait_for()
    yield "history"
    page.get_by_role("button", name="Undo the last change").click()
    yield "dialog"
    page.get_by_role("button", name="Cancel").last.click()
    page.get_by_role("tab", name="Import and export").click()
    choose(page, '{"prompt": "a", "target": "b"}\n{}')
    page.locator("#import-add").wait_for()
    yield "import"
    page.get_by_role("button", name="Keyboard shortcuts").click()
    yield "help"


BEYOND = """[...document.querySelectorAll("main :is(button, input, textarea, td, th), dialog[open] *")]
    .filter((one) => one.checkVisibility() && !one.closest(".vh, .file"))
    .filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => one.outerHTML.slice(0, 80))"""
"""What reaches beyond the right edge, where that is hidden."""


def test_nothing_scrolls_sideways_at_400_percent(site, visit):
    long = "Pneumonoultramicroscopicsilicovolcanoconiosis" * 3
    site.send("POST", "v1/edits", edits=[{"prompt": f"What is {long}?", "target": long, "tags": [long]}])
    page = visit(site, viewport=NARROW)
    for name in everything(page):
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name
        assert page.evaluate(BEYOND) == [], name


def ground(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_dark_and_light(site, visit):
    light, dark = "rgb(244, 243, 239)", "rgb(19, 19, 18)"
    page = visit(site, color_scheme="dark")
    assert ground(page) == dark
    page.get_by_role("button", name="Light colours").click()
    assert ground(page) == light
    page.reload()
    assert ground(page) == light
    page.get_by_role("button", name="Dark colours").click()  # as the system has it, and along with it from now on
    assert ground(page) == dark
    page.emulate_media(color_scheme="light")
    assert ground(page) == light


ALL = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "rules"), [("light", ALL), ("dark", ["color-contrast"])])
def test_axe_finds_nothing(site, visit, scheme, rules):
    axe = pytest.importorskip("axe_playwright_python.base", reason="needs axe-playwright-python").AXE_SCRIPT
    page = visit(site, color_scheme=scheme)
    page.evaluate(axe)
    for name in everything(page):
        page.wait_for_timeout(50)
        found = page.evaluate("rules => axe.run({runOnly: rules, resultTypes: ['violations']})", rules)
        told = [
            (each["impact"], each["id"], [node["target"] for node in each["nodes"]]) for each in found["violations"]
        ]
        assert told == [], name


def test_what_a_screen_reader_is_given(site, visit):
    page = visit(site)
    expect(rows(page)).to_have_count(2)
    assert page.title() == "tiny · editmem console"
    headings = page.get_by_role("heading").all_text_contents()
    assert headings[:3] == ["editmem console", "Ask the model", "Model alone"]
    table = page.get_by_role("table", name="Edits, newest first: 2 edits")
    expect(table.get_by_role("rowheader")).to_have_count(2)
    expect(table.get_by_role("columnheader", name="Answer")).to_be_visible()
    for landmark in ("banner", "main", "search"):
        expect(page.get_by_role(landmark)).to_have_count(1)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Type a question first.")
    expect(page.locator("#question")).to_be_focused()
