// What every part of the page is built with. Data gets into the page as text only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element: `el("p", {class: "hint", onclick: f}, "text", child)`. Null and false children are left out. */
export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function icon(name) {
  const made = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  made.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  made.append(use);
  return made;
}

export function button(text, run, given = {}, mark = null) {
  return el("button", { type: "button", onclick: run, ...given }, mark && icon(mark), text);
}

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** What an edit is asked with, as one text: a prompt, the turns of a chat, or what an item says. */
export function promptText(edit) {
  const prompt = edit.prompt ?? edit.text ?? "a picture";
  if (typeof prompt === "string") return prompt;
  if (prompt.length === 1 && prompt[0].role === "user") return String(prompt[0].content);
  return prompt.map((turn) => `${turn.role}: ${turn.content}`).join("\n");
}

/** "prompt → target", for a screen reader "prompt, answered target". */
export function pair(edit) {
  return el(
    "span",
    { class: "pair" },
    el("span", { class: "asked", dir: "auto" }, promptText(edit)),
    edit.target && [
      el("span", { class: "arrow", "aria-hidden": "true" }, " →\u00a0"),
      el("span", { class: "vh" }, ", answered "),
    ],
    edit.target && el("strong", { dir: "auto" }, edit.target),
  );
}

/** A text area as high as what is in it. */
export function growing(area) {
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  };
  area.addEventListener("input", fit);
  return fit;
}

/** Has a screen reader say something; the same twice is said twice. */
export function announce(text) {
  const status = byId("status");
  status.textContent = "";
  setTimeout(() => (status.textContent = text), 30);
}

/** A message that can be read for as long as the pointer or the focus is on it. */
export function toast(text, { action = null, bad = false, seconds = 12 } = {}) {
  const box = el("div", { class: bad ? "toast bad" : "toast" }, el("p", {}, text));
  let timer;
  const close = () => box.remove();
  const wait = () => (timer = setTimeout(close, seconds * 1000));
  const stay = () => clearTimeout(timer);
  if (action) {
    box.append(button(action.label, () => (close(), action.run()), { class: "toast-do" }));
  }
  box.append(button("", close, { class: "icon quiet", "aria-label": "Dismiss" }, "close"));
  for (const name of ["pointerenter", "focusin"]) box.addEventListener(name, stay);
  for (const name of ["pointerleave", "focusout"]) box.addEventListener(name, wait);
  byId("toasts").replaceChildren(box); // one at a time: an "Undo" is of the last change
  if (!bad) wait();
  announce(action ? `${text} ${action.label} is at the end of the page.` : text);
  return close;
}

export function fail(error) {
  if (error.name !== "AbortError") toast(error.message, { bad: true });
}

/** Asks before something is done; resolves to whether it is to be. */
export function confirmed({ title, body = [], yes }) {
  const dialog = byId("confirm-dialog");
  byId("confirm-title").textContent = title;
  byId("confirm-body").replaceChildren(...body);
  byId("confirm-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  byId("confirm-no").focus();
  byId("confirm-yes").onclick = () => dialog.close("yes");
  byId("confirm-no").onclick = () => dialog.close("");
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
  });
}

const figure = (value) => value.toFixed(2).replace("-", "\u2212");

export const scaleOf = (candidates) => Math.max(1, ...candidates.flatMap((one) => [one.score, one.threshold]));

/** A score against its threshold, as a bar and in figures; the bar says nothing that a screen reader does not. */
export function scoreOf({ score, threshold }, scale, { full = false } = {}) {
  const bar = el("span", { class: score >= threshold ? "bar over" : "bar", "aria-hidden": "true" });
  const at = (value) => `${(100 * Math.min(1, Math.max(0, value / scale))).toFixed(1)}%`;
  bar.style.setProperty("--score", at(score));
  bar.style.setProperty("--threshold", at(threshold));
  const from = el("span", { class: full ? "from" : "vh" }, `, acts from ${figure(threshold)} on`);
  return el(
    "span",
    { class: "score" },
    bar,
    el("span", { class: "figures" }, el("span", { class: "vh" }, "Score "), figure(score), from),
  );
}

export function time(seconds, options) {
  const at = new Date(seconds * 1000);
  return el("time", { datetime: at.toISOString(), title: at.toLocaleString() }, at.toLocaleString([], options));
}
