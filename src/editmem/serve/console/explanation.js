// Which edit acted on the question, how near the others were, and what the user says to that.

import { answers, askAgain, last } from "./ask.js";
import { byId, button, el, pair, promptText, scaleOf, scoreOf } from "./dom.js";
import { confirm, forget, reject } from "./changes.js";
import { memory } from "./memory.js";

const show = new EventTarget();
export { show as shown }; // "edit": the user wants to see an edit in the table

async function then(change) {
  if (!(await change)) return;
  await askAgain();
  byId("why-title").focus(); // what had the focus is gone
}

function parts(candidate) {
  const said = Object.entries(candidate.parts ?? {}).map(([name, value]) => `${name} ${value.toFixed(2)}`);
  return said.length > 1 ? said.join(" · ") : null;
}

/** What can be said of the edit that acts: the question is its own prompt, or another way to ask. */
function verdicts(record) {
  const { prompt, text, explanation } = last;
  if (!memory.writable) return null;
  const own = promptText(record.edit).trimEnd() === text;
  return el(
    "div",
    { class: "row" },
    !own && button("Right for this question", () => then(confirm(prompt, record, explanation.version))),
    !own && button("Not for this question", () => then(reject(prompt, explanation.version))),
    own && button("Forget this edit", () => then(forget(record))),
    button("Show in the table", () => show.dispatchEvent(new CustomEvent("edit", { detail: record })), {
      class: "link",
    }),
  );
}

function acting(record, candidate, scale) {
  const facts = [
    candidate && parts(candidate),
    record.edit.source && `source: ${record.edit.source}`,
    `id ${record.id}`,
  ];
  return el(
    "div",
    { class: "acting" },
    el("p", {}, pair(record.edit)),
    candidate && el("p", {}, scoreOf(candidate, scale, { full: true })),
    el("p", { class: "aside" }, facts.filter(Boolean).join(" · ")),
    verdicts(record),
  );
}

function other(candidate, scale, free) {
  const { prompt, explanation } = last;
  const claim = () => then(confirm(prompt, candidate.record, explanation.version));
  const about = `It is for this question: the edit of “${promptText(candidate.record.edit)}”`;
  return el(
    "li",
    {},
    el("span", { class: "of" }, pair(candidate.record.edit)),
    scoreOf(candidate, scale),
    free && memory.writable && button("It is for this question", claim, { class: "link", "aria-label": about }),
  );
}

function render() {
  const { explanation } = last;
  const section = byId("why");
  section.hidden = !explanation;
  if (!explanation) return;
  const { edit, candidates } = explanation;
  const scale = scaleOf(candidates);
  const others = candidates.filter((one) => one.record.id !== edit?.id);
  byId("why-title").textContent = edit ? "The edit that acted" : "No edit acted";
  byId("why-version").textContent = `version ${explanation.version}`;
  byId("why-body").replaceChildren(
    edit
      ? acting(
          edit,
          candidates.find((one) => one.record.id === edit.id),
          scale,
        )
      : el("p", { class: "aside" }, "The model answered by itself."),
    ...(others.length
      ? [
          el(
            "h4",
            {},
            edit ? "Nearest others" : "Nearest edits",
            el("span", { class: "aside" }, " would act where the bar reaches the mark"),
          ),
          el(
            "ul",
            { class: "near" },
            others.map((one) => other(one, scale, !edit)),
          ),
        ]
      : []),
  );
}

export function startExplaining() {
  answers.addEventListener("answered", render);
  answers.addEventListener("asking", () => byId("why").classList.add("old"));
  answers.addEventListener("answered", () => byId("why").classList.remove("old"));
}
