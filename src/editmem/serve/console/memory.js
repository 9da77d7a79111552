// What this tab knows of the memory, and whether the server can be reached: asked every three seconds while looked at.

import { calls, get } from "./api.js";

const EVERY = 3000;
const LONGEST = 30000;
const PATIENCE = 10000; // how long one answer may take

// "info": something is known anew; "version": the edits are others, or what may be done with them; "link".
export const events = new EventTarget();

export const memory = { version: null, edits: 0, model: null, writable: true, link: "connecting", retryAt: 0 };

const records = new Map(); // the latest record seen of each edit, active or not

let timer;
let failures = 0;
let asking = null;

export function remember(record) {
  if (record) records.set(record.id ?? record.edit.id, record);
}

/** The record of an edit, wherever it was seen last. */
export async function recordOf(id) {
  if (!records.has(id)) {
    const found = await get(`v1/edits/${encodeURIComponent(id)}`);
    remember(found.record);
  }
  return records.get(id);
}

/** Of a version that an answer named: where it is another, what is shown is asked for anew. */
export function seen(version) {
  if (version !== memory.version) refresh();
}

function tell(name) {
  events.dispatchEvent(new Event(name));
}

function link(state) {
  if (state === memory.link && state !== "down") return;
  memory.link = state;
  tell("link");
}

function later(wait) {
  clearTimeout(timer);
  if (document.visibilityState === "visible") timer = setTimeout(refresh, wait);
}

/** Ask how the memory stands; those who ask meanwhile share the answer. */
export function refresh() {
  asking ??= ask().finally(() => (asking = null));
  return asking;
}

async function ask() {
  clearTimeout(timer);
  try {
    const found = await get("v1/memory", {}, AbortSignal.timeout(PATIENCE));
    const changed = found.version !== memory.version || found.writable !== memory.writable;
    Object.assign(memory, found);
    tell("info");
    if (changed) tell("version");
    later(EVERY);
  } catch (error) {
    if (error.status === 0) return; // "unreached" has said when to try again
    later(memory.link === "locked" ? LONGEST : EVERY);
  }
}

calls.addEventListener("reached", () => {
  failures = 0;
  link("up");
});

calls.addEventListener("refused", () => {
  failures = 0;
  link("locked");
});

calls.addEventListener("unreached", () => {
  const wait = Math.min(LONGEST, 1000 * 2 ** failures);
  failures += 1;
  memory.retryAt = Date.now() + wait;
  link("down");
  later(wait);
});

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") refresh();
  else clearTimeout(timer);
});
