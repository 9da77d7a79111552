// Reads a JSONL file of edits as the server will, so that what is wrong is said before anything is sent.

const TEXTS = ["id", "subject", "source"];
const LISTS = ["tags", "aliases", "phrasings", "unlike"];
const EDIT = ["prompt", "target", "image", "join", "ends", ...TEXTS, ...LISTS];
const ITEM = ["text", "image", ...TEXTS, ...LISTS];

const isText = (value) => typeof value === "string" && value.trim() !== "";
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const shown = (value) => JSON.stringify(value)?.slice(0, 60);

function promptProblem(prompt) {
  if (typeof prompt === "string") return prompt.trim() ? null : "prompt is empty";
  const turns =
    Array.isArray(prompt) &&
    prompt.length > 0 &&
    prompt.every((turn) => isObject(turn) && "role" in turn && typeof turn.content === "string");
  if (!turns) return `prompt is to be text, or chat messages with role and content, not ${shown(prompt)}`;
  return prompt.some((turn) => turn.content.trim()) ? null : "prompt is empty";
}

/** What is wrong with an edit, or null. */
function problemOf(edit) {
  if (!isObject(edit)) return `an edit is an object with prompt and target, not ${shown(edit)}`;
  const item = "text" in edit || ("image" in edit && !("prompt" in edit) && !("target" in edit));
  const unknown = Object.keys(edit).filter((name) => !(item ? ITEM : EDIT).includes(name));
  if (unknown.length) return `unknown field ${unknown.join(", ")}`;
  if (!item) {
    const missing = ["prompt", "target"].filter((name) => !(name in edit));
    if (missing.length) return `${missing.join(" and ")} missing`;
    const wrong = promptProblem(edit.prompt);
    if (wrong) return wrong;
    if (!isText(edit.target)) return `target is to be text that is not empty, not ${shown(edit.target)}`;
  }
  if ("image" in edit && !isText(edit.image?.png))
    return `image is to be {"png": the file in base64}, not ${shown(edit.image)}`;
  for (const name of TEXTS)
    if (name in edit && !isText(edit[name])) return `${name} is to be text that is not empty, not ${shown(edit[name])}`;
  for (const name of LISTS) {
    if (!(name in edit)) continue;
    const fits =
      Array.isArray(edit[name]) && edit[name].every((one) => (name === "tags" ? typeof one === "string" : isText(one)));
    if (!fits) return `${name} is to be a list of texts, not ${shown(edit[name])}`;
  }
  return null;
}

function read(line) {
  try {
    const given = JSON.parse(line);
    const edit = isObject(given)
      ? Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null))
      : given;
    return { edit, problem: problemOf(edit) };
  } catch (error) {
    return { edit: null, problem: `not JSON: ${error.message}` };
  }
}

const keyOf = (edit) => {
  const { prompt } = edit;
  const one = Array.isArray(prompt) && prompt.length === 1 && prompt[0].role === "user" ? prompt[0].content : prompt;
  return `${JSON.stringify(typeof one === "string" ? one.trimEnd() : one)} ${JSON.stringify(edit.image ?? null)}`;
};

/**
 * @param {string} text of the file
 * @returns {{edits: object[], problems: {line: number, problem: string}[]}} with lines counted from 1
 */
export function parse(text) {
  const [edits, problems, asked] = [[], [], new Map()];
  text
    .replace(/^\ufeff/, "")
    .split("\n")
    .forEach((raw, n) => {
      if (!raw.trim()) return;
      const line = n + 1;
      const { edit, problem } = read(raw);
      if (problem) return void problems.push({ line, problem });
      if ("prompt" in edit) {
        const before = asked.get(keyOf(edit));
        if (before && before.target !== edit.target) {
          return void problems.push({ line, problem: `another answer to the prompt of line ${before.line}` });
        }
        asked.set(keyOf(edit), { line, target: edit.target });
      }
      edits.push(edit);
    });
  return { edits, problems };
}
