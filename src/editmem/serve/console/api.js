// The server's HTTP API. Addresses are relative to the page, so that it works behind a proxy's path too.

export const calls = new EventTarget(); // "reached", "unreached", "refused" (no key, or a wrong one)

const KEY = "editmem.key";
const BEHIND = [502, 503, 504]; // what a proxy says where the server behind it is gone

export class ApiError extends Error {
  /** `status` is 0 where no answer came. */
  constructor(status, message, version = null) {
    super(message);
    this.status = status;
    this.version = version;
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

function headers(body) {
  const key = sessionStorage.getItem(KEY);
  return { ...(key && { Authorization: `Bearer ${key}` }), ...(body && { "Content-Type": "application/json" }) };
}

/** What went wrong, in the server's words. */
async function errorOf(response) {
  const text = await response.text().catch(() => "");
  let said = null;
  try {
    said = JSON.parse(text);
  } catch {
    // not of the server's own making: a proxy's page, say
  }
  const error = said?.error ?? said?.detail;
  const message = typeof error === "string" ? error : (error?.message ?? (error ? JSON.stringify(error) : null));
  return new ApiError(response.status, message ?? `The server answered ${response.status}.`, error?.version ?? null);
}

async function reach(method, path, body, signal) {
  let response;
  try {
    const options = { method, headers: headers(body), signal, cache: "no-store" };
    if (body) options.body = JSON.stringify(body);
    response = await fetch(new URL(path, document.baseURI), options);
  } catch (error) {
    if (signal?.aborted && signal.reason?.name !== "TimeoutError") throw error;
    calls.dispatchEvent(new Event("unreached"));
    throw new ApiError(0, "The server does not answer. Nothing that you typed is lost.");
  }
  if (BEHIND.includes(response.status)) calls.dispatchEvent(new Event("unreached"));
  else calls.dispatchEvent(new Event(response.status === 401 ? "refused" : "reached"));
  if (!response.ok) throw await errorOf(response);
  return response;
}

export async function get(path, given = {}, signal) {
  const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value !== null && value !== ""));
  const response = await reach("GET", query.size ? `${path}?${query}` : path, null, signal);
  return response.json();
}

export async function getText(path) {
  return (await reach("GET", path, null)).text();
}

export async function post(path, body, signal) {
  return (await reach("POST", path, body, signal)).json();
}

export async function remove(path, version) {
  return (await reach("DELETE", `${path}?expected_version=${version}`, null)).json();
}

export const editPath = (id) => `v1/edits/${encodeURIComponent(id)}`;

/** The server-sent events of an answer, parsed, as they come. */
export async function* stream(path, body, signal) {
  const response = await reach("POST", path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await next(reader, signal);
    if (done) return;
    const events = (rest + value).split(/\r?\n\r?\n/);
    rest = events.pop();
    for (const event of events) {
      const data = dataOf(event);
      if (data && data !== "[DONE]") yield parsed(data);
    }
  }
}

async function next(reader, signal) {
  try {
    return await reader.read();
  } catch (error) {
    if (signal?.aborted) throw error;
    calls.dispatchEvent(new Event("unreached"));
    throw new ApiError(0, "The answer broke off: the server does not answer any more.");
  }
}

function dataOf(event) {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).trimStart()).join("\n");
}

function parsed(data) {
  let said;
  try {
    said = JSON.parse(data);
  } catch {
    throw new ApiError(500, data);
  }
  if (said.error) throw new ApiError(500, said.error.message ?? String(said.error), said.error.version ?? null);
  return said;
}
