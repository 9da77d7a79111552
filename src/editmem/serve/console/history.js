// What happened to the memory, as a timeline, newest first.

import { get } from "./api.js";
import { undo } from "./changes.js";
import { byId, button, confirmed, count, el, fail, pair, time } from "./dom.js";
import { events, memory, recordOf, remember } from "./memory.js";

const PAGE = 50;
const LONGEST = 1000; // events that are asked for again where the memory has changed
const NAMES = {
  edited: "Edited",
  superseded: "Replaced",
  forgotten: "Forgotten",
  undone: "Undone",
  confirmed: "Confirmed",
  rejected: "Rejected",
};
const SHOWN = 3; // edits of one event

let past = []; // newest first, without a gap
let all = false; // whether that is the whole history

export const when = (event) => time(event.time, { dateStyle: "short", timeStyle: "short" });

/** An edit as it was when an event happened; where that is not known here, as it was last. */
async function recordAt(id, number) {
  const before = past.find((event) => event.number < number && event.record?.id === id);
  return before?.record ?? recordOf(id).catch(() => null);
}

async function edits({ ids, number }) {
  const known = await Promise.all(ids.slice(0, SHOWN).map((id) => recordAt(id, number)));
  const lines = known.map((record, n) => (record ? pair(record.edit) : ids[n]));
  const rest = ids.length - lines.length;
  return [
    ...lines.flatMap((line, n) => (n ? ["; ", line] : [line])),
    rest > 0 && ` and ${rest.toLocaleString("en")} more`,
  ].filter(Boolean);
}

/** An event in words. `short` leaves out the edit that everybody sees it is about. */
export async function describe(event, { short = false } = {}) {
  const name = el("span", { class: `kind ${event.kind}` }, NAMES[event.kind] ?? event.kind);
  const of = event.record?.edit;
  if (event.kind === "edited") {
    const missed = !event.record.took && el("span", { class: "badge warn" }, "did not take");
    return [name, " ", short ? el("strong", {}, of.target ?? "") : pair(of), missed].filter(Boolean);
  }
  if (event.kind === "confirmed")
    return [name, " for ", el("q", {}, of.phrasings?.at(-1) ?? ""), ...(short ? [] : [": ", pair(of)])];
  if (event.kind === "rejected")
    return [name, " for ", el("q", {}, of.unlike?.at(-1) ?? ""), ...(short ? [] : [": ", pair(of)])];
  if (event.kind === "undone")
    return [
      name,
      ` ${event.undoes.map((number) => `#${number + 1}`).join(", ")}`,
      ...(short ? [] : [": ", ...(await edits(event))]),
    ];
  return short ? [name] : [name, " ", ...(await edits(event))];
}

const takenBack = () => new Set(past.flatMap((event) => event.undoes ?? []));

function standing() {
  const gone = takenBack();
  return past.filter((event) => !gone.has(event.number) && !["undone", "superseded"].includes(event.kind));
}

async function load(more = false) {
  const limit = more ? PAGE : Math.min(LONGEST, Math.max(PAGE, past.length));
  try {
    const found = await get("v1/memory/history", { order: "desc", limit, after: more ? past.at(-1).number : null });
    found.events.forEach((event) => remember(event.record));
    past = more ? [...past, ...found.events] : found.events;
    all = found.events.length < limit || past.at(-1)?.number === 0;
    await render();
  } catch (error) {
    if (error.status !== 401 && error.status !== 0) fail(error);
  }
}

const day = (event) => new Date(event.time * 1000).toLocaleDateString([], { dateStyle: "full" });

async function line(event, gone, stands, newest) {
  const back = memory.writable && stands && !newest;
  return el(
    "li",
    { class: gone.has(event.number) ? "gone" : null },
    el("span", { class: "at" }, time(event.time, { timeStyle: "short" })),
    el(
      "p",
      { class: "what" },
      ...(await describe(event)),
      gone.has(event.number) && el("span", { class: "badge" }, "taken back"),
    ),
    el(
      "p",
      { class: "aside" },
      back &&
        button("Undo to here", () => undoTo(event), {
          class: "link",
          "aria-label": `Undo to here: #${event.number + 1} and all since`,
        }),
      el("span", { class: "number" }, `#${event.number + 1}`),
    ),
  );
}

async function render() {
  const [gone, stand] = [takenBack(), standing()];
  const days = new Map();
  const lines = await Promise.all(past.map((event) => line(event, gone, stand.includes(event), event === stand[0])));
  past.forEach((event, n) => days.set(day(event), [...(days.get(day(event)) ?? []), lines[n]]));
  const held = document.activeElement?.closest("#timeline") !== null;
  byId("timeline").replaceChildren(
    ...[...days].flatMap(([name, of]) => [el("h3", {}, name), el("ol", { class: "events" }, of)]),
  );
  if (held) byId("undo-last").focus();
  byId("history-empty").hidden = past.length > 0;
  byId("history-more").hidden = all;
  byId("undo-last").hidden = !memory.writable || stand.length === 0;
}

async function undoTo(event) {
  const [stand, version] = [standing(), past[0].number + 1];
  const n = stand.indexOf(event) + 1;
  const lines = await Promise.all(
    stand.slice(0, Math.min(n, 5)).map(async (one) => el("li", {}, ...(await describe(one)))),
  );
  const body = [
    el("ol", { class: "findings" }, lines, n > 5 && el("li", {}, `and ${(n - 5).toLocaleString("en")} more`)),
  ];
  const title = n === 1 ? "Undo the last change?" : `Undo the last ${count(n, "change")}?`;
  if (await confirmed({ title, body, yes: n === 1 ? "Undo it" : `Undo ${n.toLocaleString("en")}` }))
    await undo(n, version);
}

export function startHistory() {
  const seen = () => !byId("panel-history").hidden;
  byId("undo-last").addEventListener("click", () => standing().length && undoTo(standing()[0]));
  byId("history-more").addEventListener("click", () => load(true));
  byId("tab-history").addEventListener("click", () => load());
  events.addEventListener("version", () => seen() && load());
}
