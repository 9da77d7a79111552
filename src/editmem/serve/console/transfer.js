// Edits from a file, and edits to a file.

import { getText, stream } from "./api.js";
import { added } from "./changes.js";
import { announce, byId, button, count, el, fail, promptText } from "./dom.js";
import { parse } from "./jsonl.js";
import { memory, refresh, remember } from "./memory.js";

const SHOWN = 10; // problems, and edits that did not take

const report = (...children) => byId("import-report").replaceChildren(...children.filter(Boolean));

const more = (all, what) =>
  all.length > SHOWN && el("p", { class: "aside" }, `and ${(all.length - SHOWN).toLocaleString("en")} more ${what}`);

async function read(file) {
  const { edits, problems } = parse(await file.text());
  const lines = problems
    .slice(0, SHOWN)
    .map(({ line, problem }) => el("li", {}, el("strong", {}, `Line ${line}`), `: ${problem}`));
  const send =
    edits.length > 0 &&
    memory.writable &&
    button(label(edits, problems), () => add(edits), { id: "import-add", class: problems.length ? null : "primary" });
  report(
    el(
      "p",
      { class: problems.length ? "verdict bad" : "verdict good" },
      el("strong", {}, file.name),
      `: ${count(edits.length, "edit")}`,
      problems.length > 0 &&
        `, and ${count(problems.length, "line")} with a mistake. Correct the file and choose it again.`,
    ),
    problems.length > 0 && el("ul", { class: "findings" }, lines),
    more(problems, "lines"),
    !memory.writable && el("p", { class: "hint" }, "They cannot be added here: the key in use is not for editing."),
    send &&
      el(
        "div",
        { class: "row" },
        send,
        button("Cancel", () => report()),
      ),
  );
  announce(`${file.name}: ${count(edits.length, "edit")}, ${count(problems.length, "line")} with a mistake.`);
}

const label = (edits, problems) =>
  problems.length ? `Add the ${count(edits.length, "edit")} without these lines` : `Add ${count(edits.length, "edit")}`;

async function add(edits) {
  const bar = el("progress", { max: edits.length, value: 0, "aria-label": "Edits added" });
  const text = el("p", { class: "aside" }, "Sending…");
  report(bar, text);
  try {
    let last = null;
    for await (const event of stream("v1/edits", { edits, expected_version: memory.version, stream: true })) {
      if ("done" in event) {
        bar.value = event.done;
        text.textContent = `${event.done.toLocaleString("en")} of ${count(event.all, "edit")}`;
      } else {
        last = event;
      }
    }
    if (!last?.records) throw new Error("The server broke off before it said what came of the edits. See the history.");
    await finish(last);
  } catch (error) {
    const again = button("Try again", () => add(edits));
    report(
      el("p", { class: "verdict bad", role: "alert" }, el("strong", {}, "Nothing was added. "), error.message),
      el("div", { class: "row" }, again),
    );
    refresh();
  }
}

async function finish({ records, version }) {
  records.forEach(remember);
  const missed = records.filter((record) => !record.took);
  report(
    el(
      "p",
      { class: missed.length ? "verdict bad" : "verdict good" },
      el("strong", {}, `${count(records.length, "edit")} added. `),
      missed.length > 0 && `${count(missed.length, "edit")} did not take:`,
    ),
    missed.length > 0 &&
      el(
        "ul",
        { class: "findings" },
        missed
          .slice(0, SHOWN)
          .map((record) =>
            el("li", {}, promptText(record.edit), ...record.notes.map((note) => el("p", { class: "aside" }, note))),
          ),
      ),
    more(missed, "edits"),
  );
  await refresh();
  added(records, version);
}

async function save() {
  try {
    const text = await getText("v1/edits/export");
    const address = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
    const link = el("a", { href: address, download: `edits-${memory.version}.jsonl` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    announce("The file is being saved.");
  } catch (error) {
    fail(error);
  }
}

export function startTransfer() {
  const file = byId("file");
  const drop = byId("drop");
  file.addEventListener("change", () => {
    if (file.files.length) read(file.files[0]).catch(fail);
    file.value = ""; // so that the same file, corrected, can be chosen again
  });
  drop.addEventListener("dragover", (event) => (event.preventDefault(), drop.classList.add("over")));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) read(event.dataTransfer.files[0]).catch(fail);
  });
  byId("export").addEventListener("click", save);
}
