// The table of active edits: searched, paged, looked into, forgotten.

import { editPath, get } from "./api.js";
import { askThis } from "./ask.js";
import { forget, forgetAll } from "./changes.js";
import { correctEdit } from "./correct.js";
import { announce, byId, button, confirmed, count, el, fail, pair, promptText } from "./dom.js";
import { shown } from "./explanation.js";
import { describe, when } from "./history.js";
import { events, memory, remember } from "./memory.js";

const PAGE = 100;
const PAUSE = 150; // after a keystroke

const view = { q: "", tag: "", offset: 0, total: 0, edits: [] };
const open = new Set(); // ids of which the details are shown
const chosen = new Set(); // ids that are ticked
const tags = new Set(); // seen so far

let asking = null;
let pause;

const body = () => byId("edits").tBodies[0];

/** Asks for the page that is to be seen; what is typed faster than that is answered once. */
async function load() {
  asking?.abort();
  asking = new AbortController();
  const { q, tag, offset } = view;
  try {
    const found = await get("v1/edits", { q, tag, offset, limit: PAGE }, asking.signal);
    if (offset && offset >= found.total) return turn(PAGE * Math.max(0, Math.ceil(found.total / PAGE) - 1));
    Object.assign(view, { total: found.total, edits: found.edits });
    found.edits.forEach(remember);
    render();
  } catch (error) {
    if (error.status !== 401 && error.status !== 0) fail(error); // those two are said elsewhere
  }
  return undefined;
}

function turn(offset) {
  view.offset = offset;
  return load();
}

function render() {
  const kept = document.activeElement?.dataset?.keep;
  body().replaceChildren(
    ...view.edits.flatMap((record) => [row(record), open.has(record.id) && details(record)].filter(Boolean)),
  );
  byId("edits").hidden = view.edits.length === 0;
  empty();
  pager();
  bulk();
  known();
  if (kept) refocus(kept);
}

/** The focus stays on the same button of the same edit; where that is gone, on the search. */
function refocus(kept) {
  const same = [...byId("panel-edits").querySelectorAll("[data-keep]")].find((one) => one.dataset.keep === kept);
  (same ?? byId("search")).focus({ preventScroll: true });
}

function row(record) {
  const { edit, id } = record;
  const name = promptText(edit);
  const tick = el("input", {
    type: "checkbox",
    "aria-label": `Select ${name}`,
    "data-keep": `tick ${id}`,
    onchange: (event) => choose([id], event.target.checked),
  });
  tick.checked = chosen.has(id);
  const toggle = button(
    name,
    () => unfold(record),
    {
      class: "unfold",
      dir: "auto",
      "aria-expanded": String(open.has(id)),
      "data-keep": `open ${id}`,
    },
    "chevron",
  );
  const labels = (edit.tags ?? []).map((tag) =>
    button(tag, () => pick(tag), { class: "tag", "aria-label": `Tag ${tag}: show its edits` }),
  );
  const bin = button(
    "",
    () => drop(record),
    { class: "icon quiet", "aria-label": `Forget ${name}`, title: "Forget", "data-keep": `bin ${id}` },
    "trash",
  );
  return el(
    "tr",
    { id: `row-${id}` },
    el("td", { class: "c-check" }, memory.writable && tick),
    el("th", { scope: "row" }, toggle, labels.length > 0 && el("span", { class: "tags" }, labels)),
    el(
      "td",
      { class: "c-target", dir: "auto" },
      edit.target ?? "",
      !record.took && el("span", { class: "badge warn" }, "did not take"),
    ),
    el("td", { class: "c-do" }, memory.writable && bin),
  );
}

function fact(name, value) {
  const text = Array.isArray(value) ? value.join("; ") : value;
  return text === null || text === undefined || text === ""
    ? null
    : el("div", {}, el("dt", {}, name), el("dd", {}, text));
}

function details(record) {
  const { edit, id } = record;
  const past = el("ol", { class: "past" });
  get(editPath(id))
    .then((found) => tell(past, found.events))
    .catch(fail);
  const rate = record.false_match_rate;
  return el(
    "tr",
    { class: "details" },
    el(
      "td",
      { colspan: "4" },
      el(
        "dl",
        { class: "record" },
        fact("Id", id),
        fact("About", edit.subject),
        fact("Other names", edit.aliases),
        fact("Other ways to ask", edit.phrasings),
        fact("Not for", edit.unlike),
        fact("Source", edit.source),
        fact("Answer before", record.answer_before),
        fact("Answer since", record.answer_after),
        fact(
          "Matched by mistake",
          rate === null ? null : `about ${(100 * rate).toFixed(1)} % of other questions about the same name`,
        ),
        fact("Notes", record.notes),
        el("div", {}, el("dt", {}, "What happened"), el("dd", {}, past)),
      ),
      el(
        "div",
        { class: "row" },
        button("Ask it", () => askThis(promptText(edit)), { "data-keep": `ask ${id}` }),
        memory.writable &&
          edit.target &&
          button("Change it", () => correctEdit(record), { "data-keep": `change ${id}` }),
        memory.writable && button("Forget it", () => drop(record), { class: "danger", "data-keep": `forget ${id}` }),
      ),
    ),
  );
}

async function tell(list, past) {
  const lines = await Promise.all(
    past.map(async (event) => el("li", {}, when(event), " ", ...(await describe(event, { short: true })))),
  );
  list.replaceChildren(...lines);
}

function unfold(record) {
  if (!open.delete(record.id)) open.add(record.id);
  render();
}

async function drop(record) {
  if (await forget(record)) chosen.delete(record.id);
}

function pick(tag) {
  byId("tag").value = tag;
  filter();
  byId("tag").focus();
}

function empty() {
  const filtered = view.q || view.tag;
  byId("edits-empty").hidden = view.edits.length > 0;
  byId("edits-empty").textContent = filtered
    ? "No edit has this."
    : "No edits yet. Ask something, and correct the answer; or import a file of edits.";
}

function pager() {
  const { offset, total, edits } = view;
  byId("pager").hidden = total === 0;
  const range =
    total > PAGE ? `${(offset + 1).toLocaleString("en")}–${(offset + edits.length).toLocaleString("en")} of ` : "";
  byId("page-text").textContent = range + count(total, "edit");
  byId("edits-caption").textContent = `Edits, newest first: ${byId("page-text").textContent}`;
  for (const [id, off] of [
    ["page-prev", offset === 0],
    ["page-next", offset + edits.length >= total],
  ]) {
    byId(id).hidden = total <= PAGE;
    byId(id).setAttribute("aria-disabled", String(off));
  }
}

function step(by) {
  const offset = view.offset + by;
  if (offset < 0 || offset >= view.total) return;
  turn(offset).then(
    () => (byId("panel-edits").scrollIntoView({ block: "start" }), announce(byId("page-text").textContent)),
  );
}

// Choosing several

function choose(ids, on) {
  ids.forEach((id) => (on ? chosen.add(id) : chosen.delete(id)));
  bulk();
}

function bulk() {
  byId("bulk").hidden = chosen.size === 0;
  byId("bulk-text").textContent = `${count(chosen.size, "edit")} selected`;
  const here = view.edits.filter((record) => chosen.has(record.id)).length;
  byId("check-all").checked = here > 0 && here === view.edits.length;
  byId("check-all").indeterminate = here > 0 && here < view.edits.length;
  byId("check-all").hidden = !memory.writable;
}

function chooseNone() {
  chosen.clear();
  render();
}

async function forgetChosen() {
  const ids = [...chosen];
  const lines = view.edits
    .filter((record) => chosen.has(record.id))
    .slice(0, 5)
    .map((record) => el("li", {}, pair(record.edit)));
  const rest = ids.length - lines.length;
  const body = [
    el("ul", { class: "findings" }, lines, rest > 0 && el("li", {}, `and ${rest.toLocaleString("en")} more`)),
    el("p", { class: "hint" }, "This can be undone."),
  ];
  if (
    !(await confirmed({
      title: `Forget ${count(ids.length, "edit")}?`,
      body,
      yes: `Forget ${count(ids.length, "edit")}`,
    }))
  )
    return;
  if (!(await forgetAll(ids))) return;
  chooseNone();
  byId("search").focus();
}

// Searching

function filter() {
  clearTimeout(pause);
  Object.assign(view, { q: byId("search").value.trim(), tag: byId("tag").value.trim(), offset: 0 });
  chosen.clear();
  load().then(() =>
    announce(byId("edits-empty").hidden ? byId("page-text").textContent : byId("edits-empty").textContent),
  );
}

function known() {
  const before = tags.size;
  view.edits.forEach((record) => (record.edit.tags ?? []).forEach((tag) => tags.add(tag)));
  if (tags.size > before)
    byId("known-tags").replaceChildren(...[...tags].sort().map((tag) => el("option", { value: tag })));
}

function show(record) {
  byId("search").value = record.id;
  byId("tag").value = "";
  open.add(record.id);
  byId("tab-edits").click();
  filter();
  byId("panel-edits").scrollIntoView({ block: "nearest" });
}

export function startTable() {
  byId("filters").addEventListener("submit", (event) => (event.preventDefault(), filter()));
  byId("filters").addEventListener("input", () => (clearTimeout(pause), (pause = setTimeout(filter, PAUSE))));
  byId("page-prev").addEventListener("click", () => step(-PAGE));
  byId("page-next").addEventListener("click", () => step(PAGE));
  byId("check-all").addEventListener("change", (event) => {
    choose(
      view.edits.map((record) => record.id),
      event.target.checked,
    );
    render();
  });
  byId("bulk-clear").addEventListener("click", chooseNone);
  byId("bulk-forget").addEventListener("click", forgetChosen);
  events.addEventListener("version", load);
  shown.addEventListener("edit", (event) => show(event.detail));
}
