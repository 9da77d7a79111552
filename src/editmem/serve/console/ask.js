// The question, and the two answers to it, side by side.

import { stream } from "./api.js";
import { announce, byId, button, el, growing, promptText } from "./dom.js";
import { events, memory, seen } from "./memory.js";

export const answers = new EventTarget(); // "asking", "answered"

/** What was asked last. `explanation` is of the edited answer: null until it is there, or where it broke off. */
export const last = { text: "", prompt: null, said: "", explanation: null };

const SIDES = [
  { id: "answer-off", editmem: { off: true }, empty: "What the model says by itself." },
  {
    id: "answer-on",
    editmem: { explain: true },
    empty: "What it says with the edits in place, and which of them acted.",
  },
];
const QUESTION = "editmem.question";

let running = null;
let fit;

const mode = () => document.querySelector("input[name=mode]:checked").value;

function request(text, given) {
  const shared = {
    model: memory.model,
    max_tokens: Number(byId("max-tokens").value) || 64,
    temperature: 0,
    stream: true,
    editmem: given,
  };
  return mode() === "chat"
    ? ["v1/chat/completions", { ...shared, messages: [{ role: "user", content: text }] }]
    : ["v1/completions", { ...shared, prompt: text }];
}

/** Streams one answer into its card; resolves to what was said, or to null where that failed. */
async function say(side, text, signal) {
  const card = byId(side.id);
  const said = card.querySelector(".said");
  const words = document.createTextNode("");
  const answer = el("p", { class: "words", dir: "auto", "aria-busy": "true" }, words);
  said.replaceChildren(answer);
  card.classList.add("busy");
  let [thoughts, explanation, cut] = ["", null, false];
  try {
    for await (const chunk of stream(...request(text, side.editmem), signal)) {
      explanation = chunk.editmem ?? explanation;
      const choice = chunk.choices?.[0];
      words.appendData(choice?.delta?.content ?? choice?.text ?? "");
      thoughts += choice?.delta?.reasoning_content ?? "";
      cut ||= choice?.finish_reason === "length";
    }
    if (!words.data.trim()) said.append(el("p", { class: "aside" }, "It says nothing."));
    if (cut) said.append(el("p", { class: "aside" }, "Cut off at the most tokens asked for."));
    if (thoughts)
      said.append(el("details", {}, el("summary", {}, "What it thought first"), el("p", { class: "words" }, thoughts)));
    return { words: words.data.trim(), explanation };
  } catch (error) {
    const stopped = error.name === "AbortError";
    said.append(el("p", { class: stopped ? "aside" : "error" }, stopped ? "Stopped." : error.message));
    return null;
  } finally {
    answer.removeAttribute("aria-busy");
    card.classList.remove("busy");
  }
}

function report(bare, edited) {
  if (!bare || !edited) return announce("An answer broke off.");
  const acting = edited.explanation?.edit;
  const why = acting ? `The edit of “${promptText(acting.edit)}” acted.` : "No edit acted.";
  const sentence = (words) => `${words.replace(/\.$/, "")}.`;
  return announce(`Model alone: ${sentence(bare.words)} With edits: ${sentence(edited.words)} ${why}`);
}

function badge(explanation) {
  const mark = byId("answer-on").querySelector(".badge");
  byId("answer-on").classList.toggle("acted", Boolean(explanation?.edit));
  mark.hidden = !explanation;
  mark.textContent = explanation?.edit ? "an edit acts" : "no edit acts";
}

export async function ask() {
  const question = byId("question");
  const text = question.value.trim();
  if (!text) {
    question.focus();
    return announce("Type a question first.");
  }
  running?.abort();
  const own = (running = new AbortController());
  const prompt = mode() === "chat" ? [{ role: "user", content: text }] : text;
  Object.assign(last, { text, prompt, said: "", explanation: null });
  busy(true);
  badge(null);
  answers.dispatchEvent(new Event("asking"));
  const both = SIDES.map((side) => say(side, text, own.signal));
  const [bare, edited] = await Promise.all(both);
  if (running !== own) return undefined; // asked anew meanwhile
  running = null;
  busy(false);
  Object.assign(last, { said: edited?.words ?? "", explanation: edited?.explanation ?? null });
  badge(last.explanation);
  byId("answer-on").querySelector("footer").hidden = !edited || !memory.writable;
  if (last.explanation) seen(last.explanation.version);
  stale();
  answers.dispatchEvent(new Event("answered"));
  return report(bare, edited);
}

function busy(is) {
  byId("stop").hidden = !is;
  byId("correct-button").setAttribute("aria-disabled", String(is)); // not `disabled`: it keeps the focus
}

/** Whether there is an answer that the user may correct. */
export function correctable() {
  return !byId("answer-on").querySelector("footer").hidden && running === null && memory.writable;
}

export function stop() {
  const was = running !== null;
  running?.abort();
  return was;
}

/** Asks what was asked last, if anything was. */
export function askAgain() {
  if (!last.text) return undefined;
  byId("question").value = last.text;
  return ask();
}

export function askThis(text) {
  const question = byId("question");
  question.value = text;
  fit();
  keep();
  question.focus();
  return ask();
}

function stale() {
  const footer = byId("answer-on").querySelector("footer");
  footer.querySelector(".stale")?.remove();
  if (last.explanation && last.explanation.version !== memory.version) {
    const again = button("Ask again", askAgain, { class: "link" });
    footer.append(el("span", { class: "stale" }, "The memory has changed since. ", again));
  }
}

function keep() {
  sessionStorage.setItem(QUESTION, JSON.stringify({ text: byId("question").value, mode: mode() }));
}

function label() {
  byId("question-label").textContent = mode() === "chat" ? "Question" : "Text to complete";
}

export function startAsking() {
  const question = byId("question");
  const kept = JSON.parse(sessionStorage.getItem(QUESTION) ?? "null");
  fit = growing(question);
  if (kept) {
    question.value = kept.text;
    document.querySelector(`input[name=mode][value=${kept.mode === "text" ? "text" : "chat"}]`).checked = true;
  }
  label();
  fit();
  for (const side of SIDES) {
    byId(side.id)
      .querySelector(".said")
      .append(el("p", { class: "aside" }, side.empty));
  }
  byId("ask-form").addEventListener("submit", (event) => (event.preventDefault(), ask()));
  byId("ask-form").addEventListener("input", () => (keep(), label()));
  byId("stop").addEventListener("click", stop);
  events.addEventListener("version", stale);
}
