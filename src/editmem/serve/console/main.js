// Puts the page together: header, connection, key, tabs, shortcuts.

import { hasKey, setKey } from "./api.js";
import { ask, startAsking, stop } from "./ask.js";
import { cancel, correctAnswer, goOn, isOpen, startCorrecting } from "./correct.js";
import { announce, byId, button } from "./dom.js";
import { startTable } from "./edits.js";
import { startExplaining } from "./explanation.js";
import { startHistory } from "./history.js";
import { events, memory, refresh } from "./memory.js";
import { startTransfer } from "./transfer.js";

const LINKS = { connecting: "Connecting", up: "Connected", down: "No answer", locked: "Key needed" };
const KEYS = "editmem.keys";

// Header and connection

function facts() {
  byId("fact-model").textContent = memory.model;
  byId("fact-edits").textContent = memory.edits.toLocaleString("en");
  byId("fact-version").textContent = memory.version.toLocaleString("en");
  byId("fact-readonly").hidden = memory.writable;
  offerKey();
  document.title = `${memory.model} · editmem console`;
  document.body.classList.toggle("readonly", !memory.writable);
}

let counting;

function countdown() {
  const left = Math.max(0, Math.ceil((memory.retryAt - Date.now()) / 1000));
  const text = byId("banner").querySelector("#retry-in");
  if (text) text.textContent = left > 0 ? `Trying again in ${left} s.` : "Trying again…";
}

function connection() {
  byId("link-state").dataset.state = memory.link;
  byId("link-text").textContent = LINKS[memory.link];
  const banner = byId("banner");
  const down = memory.link === "down";
  clearInterval(counting);
  if (!down && !banner.hidden) announce("The server answers again.");
  if (down && banner.hidden) {
    const wait = document.createElement("span");
    wait.id = "retry-in";
    wait.setAttribute("aria-live", "off");
    banner.replaceChildren(
      "The server does not answer. Nothing that you typed is lost. ",
      wait,
      button("Try now", refresh, { class: "link" }),
    );
  }
  banner.hidden = !down;
  if (down) {
    countdown();
    counting = setInterval(countdown, 500);
  }
  offerKey();
  if (memory.link === "locked") askForKey();
}

// Key

/** Where there is one, or where more could be done with one. */
function offerKey() {
  byId("key-button").hidden = memory.link !== "locked" && memory.writable && !hasKey();
}

function askForKey() {
  const dialog = byId("key-dialog");
  byId("key-error").textContent = hasKey() ? "The server does not take this key." : "";
  if (!dialog.open) dialog.showModal();
  byId("key").focus();
}

function startKey() {
  const dialog = byId("key-dialog");
  byId("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    setKey(byId("key").value.trim());
    byId("key").value = "";
    await refresh();
    if (memory.link === "locked") return askForKey();
    dialog.close();
    return announce(memory.writable ? "The key is in use." : "With this key edits can be looked at, not changed.");
  });
  byId("key-cancel").addEventListener("click", () => dialog.close());
  byId("key-button").addEventListener("click", askForKey);
}

// Colours

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() {
  byId("theme-button").setAttribute("aria-label", dark() ? "Light colours" : "Dark colours");
  byId("theme-button")
    .querySelector("use")
    .setAttribute("href", dark() ? "#i-sun" : "#i-moon");
}

function switchTheme() {
  const next = dark() ? "light" : "dark";
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  if (next === system) {
    delete document.documentElement.dataset.theme; // goes along with the system again
    localStorage.removeItem("editmem.theme");
  } else {
    document.documentElement.dataset.theme = next;
    localStorage.setItem("editmem.theme", next);
  }
  nameTheme();
}

// Tabs

const tabs = () => [...document.querySelectorAll("[role=tab]")];

function select(tab) {
  for (const one of tabs()) {
    const on = one === tab;
    one.setAttribute("aria-selected", String(on));
    one.tabIndex = on ? 0 : -1;
    byId(one.getAttribute("aria-controls")).hidden = !on;
  }
}

function moveTab(event) {
  const all = tabs();
  const at = all.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const tab = all[(to + all.length) % all.length];
  tab.focus();
  tab.click();
}

function startTabs() {
  for (const tab of tabs()) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", moveTab);
  }
}

// Shortcuts

function help() {
  byId("help-dialog").showModal();
}

function search() {
  byId("tab-edits").click();
  byId("search").focus();
  byId("search").select();
}

function question() {
  byId("question").focus();
  byId("question").select();
}

const SINGLE = { "/": question, "?": help, e: correctAnswer, s: search };

function escape() {
  if (stop()) return;
  if (isOpen()) cancel();
  else byId("toasts").replaceChildren();
}

function onKey(event) {
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    if (event.target.closest?.(".memory")) return;
    event.preventDefault();
    if (event.target.closest?.("#correct")) goOn();
    else ask();
    return;
  }
  if (event.key === "Escape" && !event.target.closest?.("#filters")) return void escape(); // a search clears itself
  const typing = event.target.closest?.("input:not([type=checkbox], [type=radio]), textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !byId("keys-on").checked) return;
  const run = SINGLE[event.key];
  if (!run) return;
  event.preventDefault();
  run();
}

function startShortcuts() {
  const on = byId("keys-on");
  on.checked = localStorage.getItem(KEYS) !== "off";
  on.addEventListener("change", () => localStorage.setItem(KEYS, on.checked ? "on" : "off"));
  byId("help-button").addEventListener("click", help);
  byId("help-close").addEventListener("click", () => byId("help-dialog").close());
  document.addEventListener("keydown", onKey);
}

events.addEventListener("info", facts);
events.addEventListener("link", connection);
byId("theme-button").addEventListener("click", switchTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
nameTheme();
startKey();
startTabs();
startShortcuts();
startAsking();
startExplaining();
startCorrecting();
startTable();
startHistory();
startTransfer();
refresh();
