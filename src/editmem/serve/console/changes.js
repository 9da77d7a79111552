// What changes the memory from all over the page. Each names the version it was decided on, so that nobody's change is
// overlooked; each can be undone from its message.

import { editPath, post, remove } from "./api.js";
import { count, fail, promptText, toast } from "./dom.js";
import { memory, refresh } from "./memory.js";

const clip = (text) => (text.length > 60 ? `${text.slice(0, 57)}…` : text);

/** Runs a change; null where it was refused, which is said. */
async function changed(run, again) {
  try {
    const done = await run();
    await refresh();
    return done;
  } catch (error) {
    if (error.status === 409) {
      await refresh();
      toast(
        `Nothing was changed: the memory has changed meanwhile, to version ${error.version ?? memory.version}. ${again}`,
        { bad: true },
      );
    } else {
      fail(error);
    }
    return null;
  }
}

export async function undo(n, version) {
  const done = await changed(
    () => post("v1/memory/undo", { n, expected_version: version }),
    "See the history for what can be undone.",
  );
  if (done) toast(`Undone. ${count(done.changed.length, "edit")} changed.`);
  return done;
}

const undoOf = (n, version) => ({ label: "Undo", run: () => undo(n, version) });

export async function forget(record) {
  const done = await changed(
    () => remove(editPath(record.id), memory.version),
    "The table is up to date now; forget the edit again if it is still meant.",
  );
  if (done) toast(`Forgot “${clip(promptText(record.edit))}”.`, { action: undoOf(1, done.version) });
  return done;
}

export async function forgetAll(ids) {
  const done = await changed(
    () => post("v1/memory/forget", { ids, expected_version: memory.version }),
    "The table is up to date now.",
  );
  if (done) toast(`Forgot ${count(ids.length, "edit")}.`, { action: undoOf(1, done.version) });
  return done;
}

/** Tells of edits that were added, and offers to undo that. */
export function added(records, version) {
  const ids = new Set(records.map((record) => record.id));
  const missed = records.filter((record) => !record.took).length;
  const said = ids.size === 1 ? `Saved: “${clip(records[0].edit.target ?? "")}”.` : `Added ${count(ids.size, "edit")}.`;
  const warned = missed ? ` ${count(missed, "edit")} did not take.` : "";
  toast(said + warned, { action: undoOf(ids.size, version), bad: missed > 0 });
}

export async function confirm(prompt, record, version) {
  const body = { prompt, id: record.id, expected_version: version };
  const done = await changed(() => post("v1/memory/confirm", body), "Ask again to see what acts now.");
  if (done) toast("Noted: the edit is for this question too.", { action: undoOf(1, done.version) });
  return done;
}

export async function reject(prompt, version) {
  const body = { prompt, expected_version: version };
  const done = await changed(() => post("v1/memory/reject", body), "Ask again to see what acts now.");
  if (done) toast("Noted: the edit is not for this question.", { action: undoOf(1, done.version) });
  return done;
}
