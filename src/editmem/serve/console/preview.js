// What an edit would do, as the server worked it out, and what others changed meanwhile.

import { count, el, pair, promptText, scaleOf, scoreOf } from "./dom.js";
import { recordOf } from "./memory.js";
import { describe } from "./history.js";

const quoted = (text) => el("q", {}, text.trim() || "nothing");

function verdict({ took, answer_after: after }, before) {
  const changes = before.trim() !== after.trim();
  return took
    ? el(
        "p",
        { class: "verdict good" },
        el("strong", {}, "It takes. "),
        "The model would answer ",
        quoted(after),
        changes && [" instead of ", quoted(before)],
        ".",
      )
    : el(
        "p",
        { class: "verdict bad" },
        el("strong", {}, "It does not take. "),
        "The model would still answer ",
        quoted(after),
        ".",
      );
}

async function warning(text, id) {
  const record = await recordOf(id);
  return el("li", { class: "warn" }, text, " ", pair(record.edit), el("span", { class: "aside" }, ` id ${id}`));
}

async function findings({ record, supersedes, acting }) {
  const rate = record.false_match_rate;
  return Promise.all([
    ...(supersedes ? [warning("It takes the place of this edit:", supersedes)] : []),
    ...(acting && acting !== supersedes ? [warning("Its question is answered by another edit now:", acting)] : []),
    ...record.notes.map((note) => el("li", { class: "warn" }, note[0].toUpperCase() + note.slice(1))),
    ...(rate === null
      ? []
      : [
          el(
            "li",
            {},
            `About ${(100 * rate).toFixed(1)} % of other questions about the same name would get this answer.`,
          ),
        ]),
  ]);
}

const targetOf = async (id) => (await recordOf(id).catch(() => null))?.edit.target ?? id;

/** Who answers a question afterwards, and who did: of an edit that is changed under its own id, what it was. */
async function answered({ before, after }, own, renewed) {
  const name = async (id, now) =>
    id === null ? "the model" : id === own && !(renewed && !now) ? el("strong", {}, "this edit") : await targetOf(id);
  if (before === after && !(renewed && after === own))
    return [el("span", { class: "aside" }, "stays "), await name(after, true)];
  return [
    el("span", { class: "aside" }, "was "),
    await name(before, false),
    el("span", { class: "aside" }, ", becomes "),
    await name(after, true),
  ];
}

async function take(one, near, scale, { record, supersedes }) {
  const moved = one.before !== one.after;
  return el(
    "tr",
    { class: moved ? "moved" : null },
    el("th", { scope: "row" }, one.question),
    el("td", {}, near ? scoreOf(near, scale) : el("span", { class: "vh" }, "not compared")),
    el("td", {}, ...(await answered(one, record.id, supersedes === record.id))),
  );
}

/** Other questions and look-alikes: how near they are, and who answers them. */
async function others(found) {
  const { nearest, supersedes } = found;
  const named = found.takes.map((one) => [promptText({ prompt: one.question }), one]);
  const takes = [...new Map(named)].map(([question, one]) => ({ ...one, question })); // each once
  if (!takes.length) return [];
  const scale = scaleOf(nearest);
  const near = (question) =>
    nearest.find((one) => one.record.id !== supersedes && promptText(one.record.edit) === question);
  const rows = await Promise.all(takes.map((one) => take(one, near(one.question), scale, found)));
  const moved = takes.filter((one) => one.before !== one.after).length;
  const heads = ["Question", "How near", "Answer"].map((name) => el("th", { scope: "col" }, name));
  return [
    el("h4", {}, `Look-alikes and other questions: ${moved ? count(moved, "changes", "change") : "none changes"}`),
    el(
      "table",
      { class: "takes" },
      el("caption", { class: "vh" }, "Who answers other questions"),
      el("thead", {}, el("tr", {}, heads)),
      el("tbody", {}, rows),
    ),
  ];
}

/** What a preview found, for the page. `said` is what the model says now, where the page has heard it. */
export async function previewOf(found, said = found.record.answer_before) {
  const [list, table] = await Promise.all([findings(found), others(found)]);
  return [verdict(found.record, said), list.length > 0 && el("ul", { class: "findings" }, list), ...table].filter(
    Boolean,
  );
}

/** What has happened since the version that was checked. */
export async function conflictOf(changes, version) {
  const lines = await Promise.all(changes.map(async (event) => el("li", {}, ...(await describe(event)))));
  return [
    el(
      "p",
      { class: "verdict bad" },
      el("strong", {}, "The memory has changed since this was checked. "),
      `Nothing was saved. It is at version ${version} now:`,
    ),
    el("ol", { class: "findings" }, lines),
  ];
}
