// The form in which an answer is corrected: filled in, checked, saved; each save on the version that was checked.

import { get, post } from "./api.js";
import { askAgain, correctable, last } from "./ask.js";
import { added } from "./changes.js";
import { announce, byId, button, el, fail, growing, promptText, toast } from "./dom.js";
import { events, memory, refresh, remember } from "./memory.js";
import { conflictOf, previewOf } from "./preview.js";

const DRAFT = "editmem.draft";
const LINES = ["phrasings", "unlike", "questions"];
const LISTED = ["aliases", "tags"];
const FIELDS = ["prompt", "target", "subject", "source", ...LINES, ...LISTED];

let base = null; // the edit that the form was filled from
let checked = null; // the preview that a save would go by
let working = null;
let touched = false; // whether the user has typed into it
let fits = [];

const field = (name) => byId(`c-${name}`);
const lines = (text) =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
const listed = (text) =>
  text
    .split(/[,\n]/)
    .map((part) => part.trim())
    .filter(Boolean);

function fill(edit) {
  base = edit;
  touched = false;
  for (const name of FIELDS) {
    const between = LINES.includes(name) ? "\n" : ", ";
    const value = name === "prompt" ? promptText(edit) : edit[name];
    field(name).value = Array.isArray(value) ? value.join(between) : (value ?? "");
  }
  byId("correct-more").open = FIELDS.slice(2).some((name) => field(name).value);
}

/** The edit that the form holds. What the form does not show is kept from the edit it was filled from. */
function edit() {
  const prompt = field("prompt").value.trim();
  const same = base !== null && promptText(base).trim() === prompt;
  const kept = same ? { id: base.id, join: base.join, ends: base.ends, image: base.image } : {};
  const made = { ...kept, prompt: same && base.prompt ? base.prompt : prompt, target: field("target").value.trim() };
  for (const name of ["subject", "source"]) if (field(name).value.trim()) made[name] = field(name).value.trim();
  for (const name of ["phrasings", "unlike"])
    if (lines(field(name).value).length) made[name] = lines(field(name).value);
  for (const name of LISTED) if (listed(field(name).value).length) made[name] = listed(field(name).value);
  return Object.fromEntries(Object.entries(made).filter(([, value]) => value !== undefined && value !== null));
}

function valid() {
  const wrong = ["prompt", "target"].filter((name) => !field(name).value.trim());
  for (const name of ["prompt", "target"]) {
    const missing = wrong.includes(name);
    field(name).setAttribute("aria-invalid", String(missing));
    byId(`c-${name}-error`).textContent = missing
      ? name === "prompt"
        ? "Say what is asked."
        : "Say what the answer is to be."
      : "";
  }
  if (wrong.length) field(wrong[0]).focus();
  return wrong.length === 0;
}

export const isOpen = () => !byId("correct").hidden;

function open(title) {
  byId("correct-title").textContent = title;
  byId("correct").hidden = false;
  unchecked();
  keep();
  fits.forEach((fit) => fit());
  byId("correct").scrollIntoView({ block: "nearest" });
  field("target").focus();
  field("target").select();
}

/** Opens the form for the answer that is shown. */
export function correctAnswer() {
  if (!correctable()) return;
  const acting = last.explanation?.edit?.edit;
  const own = acting && promptText(acting).trimEnd() === last.text;
  fill(own ? acting : { prompt: last.text, target: last.said });
  origin(own ? null : acting);
  open("Correct this answer");
}

/** Opens the form for an edit of the table. */
export function correctEdit(record) {
  fill(record.edit);
  origin(null);
  open("Change this edit");
}

/** Where another edit's answer was given, changing that edit may be what is meant. */
function origin(acting) {
  const hint = byId("correct-origin");
  hint.hidden = !acting;
  if (!acting) return;
  const change = button(
    "Change that edit instead",
    () => (fill({ ...acting }), origin(null), open("Change this edit")),
    { class: "link" },
  );
  hint.replaceChildren("The answer came from the edit of ", el("q", {}, promptText(acting)), ". ", change);
}

function close() {
  working?.abort();
  byId("correct").hidden = true;
  sessionStorage.removeItem(DRAFT);
  unchecked();
  const back = byId("correct-button");
  (back.offsetParent ? back : byId("question")).focus();
}

/** Closes without saving; what was typed can be had back. */
export function cancel() {
  const typed = touched && draft();
  close();
  if (typed) toast("The correction was closed.", { action: { label: "Bring it back", run: () => restore(typed) } });
}

function unchecked() {
  checked = null;
  byId("preview").replaceChildren();
  byId("check-hint").hidden = false;
  byId("check").classList.add("primary");
}

function busy(is, text) {
  byId("correct").setAttribute("aria-busy", String(is));
  byId("correct").classList.toggle("busy", is);
  byId("check-hint").textContent = is ? text : "Shows what it would do. Nothing is saved yet.";
}

/** Runs what takes a while and can be cancelled; null where it failed, which is said. */
async function work(text, run) {
  working?.abort();
  const own = (working = new AbortController());
  busy(true, text);
  announce(text);
  try {
    return await run(own.signal);
  } catch (error) {
    if (error.status === 409) await conflict();
    else if (error.status === 400) problem(error.message);
    else fail(error);
    return null;
  } finally {
    if (working === own) busy(false);
  }
}

function problem(message) {
  byId("preview").replaceChildren(el("p", { class: "verdict bad", role: "alert" }, message));
}

export async function check() {
  if (!valid()) return;
  unchecked();
  const wanted = edit();
  const questions = [...new Set([last.text, ...lines(field("phrasings").value), ...lines(field("questions").value)])];
  const asked = questions.filter((question) => question && question !== field("prompt").value.trim());
  await work("Checking what it would do…", async (signal) => {
    const found = await post("v1/edits/preview", { edit: wanted, questions: asked }, signal);
    found.nearest.forEach((one) => remember(one.record));
    const shown = await previewOf(found, promptText(wanted) === last.text ? last.said : undefined);
    if (signal.aborted) return;
    checked = { edit: wanted, version: found.version };
    const save = button("Save", saveChecked, { id: "save", class: "primary", "aria-keyshortcuts": "Control+Enter" });
    save.append(" ", el("kbd", { "aria-hidden": "true" }, "Ctrl ↵"));
    byId("preview").replaceChildren(
      el("h4", { class: "vh" }, "What it would do"),
      ...shown,
      el(
        "div",
        { class: "row" },
        save,
        button("Change something", () => field("target").focus()),
      ),
    );
    byId("check").classList.remove("primary");
    byId("check-hint").hidden = true;
    byId("preview").scrollIntoView({ block: "nearest" });
    save.focus({ preventScroll: true });
    announce(found.record.took ? "Checked: it takes. Save is next." : "Checked: it does not take.");
    if (memory.version !== found.version) await refresh();
  });
}

const saving = () => byId("correct").inert;

async function saveChecked() {
  const { edit: wanted, version } = checked;
  const body = { edits: [wanted], expected_version: version };
  byId("correct").inert = true;
  const done = await work("Saving…", (signal) => post("v1/edits", body, signal));
  byId("correct").inert = false;
  if (!done) return byId("check-again")?.focus();
  close();
  done.records.forEach(remember);
  await refresh();
  added(done.records, done.version);
  return askAgain();
}

/** Shows what has changed since the check, for the user to check again. */
async function conflict() {
  const since = checked?.version;
  if (since === undefined) return;
  checked = null;
  try {
    const found = await get("v1/memory/history", { after: since, limit: 20 });
    const shown = await conflictOf(found.events, found.version);
    const again = button("Check again", check, { id: "check-again", class: "primary" });
    byId("preview").replaceChildren(...shown, el("div", { class: "row" }, again));
    again.focus({ preventScroll: true });
    announce("The memory has changed since this was checked. Nothing was saved. Check again.");
  } catch (error) {
    fail(error);
  }
}

/** Ctrl+Enter: what comes next. */
export function goOn() {
  return checked ? saveChecked() : check();
}

const draft = () => ({ values: Object.fromEntries(FIELDS.map((name) => [name, field(name).value])), base });

function keep() {
  if (isOpen()) sessionStorage.setItem(DRAFT, JSON.stringify(draft()));
}

function restore(kept) {
  base = kept.base;
  touched = true;
  for (const name of FIELDS) field(name).value = kept.values[name] ?? "";
  byId("correct").hidden = false;
  keep();
  fits.forEach((fit) => fit());
}

export function startCorrecting() {
  fits = [...byId("correct-form").querySelectorAll("textarea")].map(growing);
  const kept = JSON.parse(sessionStorage.getItem(DRAFT) ?? "null");
  if (kept) restore(kept);
  byId("correct-button").addEventListener("click", correctAnswer);
  byId("correct-close").addEventListener("click", cancel);
  byId("correct-cancel").addEventListener("click", cancel);
  byId("correct-form").addEventListener("submit", (event) => (event.preventDefault(), check()));
  byId("correct-form").addEventListener("input", () => {
    working?.abort();
    touched = true;
    unchecked();
    keep();
  });
  byId("correct-more").addEventListener("toggle", () => fits.forEach((fit) => fit()));
  events.addEventListener("version", () => checked && memory.version !== checked.version && !saving() && conflict());
}
