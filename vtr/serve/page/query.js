// What is looked for: words, chips, filters; in the address, so that it can be kept and gone back to.

import { $, ask, el, icon, toast, clock } from "/page/dom.js";

const words = $("#words"), chips = $("#chips");
const inside = $("#inside"), length = $("#length"), all = $("#all");

/** Moments and pictures beside the words: {kind: "like" | "unlike" | "example", key, at, name}. */
let parts = [];
let changed = () => {};
const MOST_LETTERS = 4000; // no model reads more, and longer addresses are refused

export const onChange = (listener) => { changed = listener; };

/** `a dog -snow -"a red car"` -> words and what should not be seen. */
export function read(text) {
  const without = [];
  const rest = text.replace(/(^|\s)-(?:"([^"]+)"|([^\s"-][^\s"]*))/g, (_, space, quoted, word) => {
    without.push((quoted || word).trim());
    return space;
  });
  const said = rest.replace(/\s+/g, " ").trim();
  return { texts: said ? [said] : [], without: without.filter(Boolean) };
}

export const isEmpty = () => !parts.some((part) => part.kind !== "unlike") && !read(words.value).texts.length;

/** Whether it says only what should not be seen. */
export const onlyAvoids = () => isEmpty() && Boolean(parts.length || words.value.trim());

/** The question for the server. */
export function question() {
  const [least, most] = length.value.split("-");
  const pick = (kind) => parts.filter((part) => part.kind === kind);
  return {
    ...read(words.value),
    like: pick("like").map((part) => [part.key, part.at]),
    unlike: pick("unlike").map((part) => [part.key, part.at]),
    examples: pick("example").map((part) => part.key),
    inside: inside.value || undefined,
    min_length: least ? Number(least) : undefined,
    max_length: most ? Number(most) : undefined,
    all_moments: all.checked,
  };
}

export function toAddress() {
  const search = new URLSearchParams();
  if (words.value.trim()) search.append("q", words.value.trim().slice(0, MOST_LETTERS));
  for (const part of parts) search.append(part.kind, JSON.stringify([part.key, part.at, part.name]));
  if (inside.value) search.append("in", inside.value);
  if (length.value) search.append("length", length.value);
  if (all.checked) search.append("all", "1");
  const text = search.toString();
  return text ? `/?${text}` : "/";
}

export function fromAddress() {
  const search = new URLSearchParams(location.search);
  words.value = search.get("q") || "";
  parts = [];
  for (const kind of ["like", "unlike", "example"]) {
    for (const text of search.getAll(kind)) {
      try {
        const [key, at, name] = JSON.parse(text);
        parts.push({ kind, key: String(key), at: Number(at) || 0, name: String(name) });
      } catch { /* an address that somebody wrote by hand */ }
    }
  }
  const folder = search.get("in") || "";
  if (folder && ![...inside.options].some((option) => option.value === folder)) {
    inside.append(el("option", { value: folder }, folder));
  }
  inside.value = folder;
  length.value = search.get("length") || "";
  all.checked = search.get("all") === "1";
  showChips();
}

export function add(kind, hit) {
  const part = { kind, key: hit.key, at: hit.best, name: `${hit.name} ${clock(hit.best)}` };
  parts = parts.filter((other) => !(other.key === part.key && other.at === part.at));
  if (kind === "like") { // what it is about now; the words were the way there
    words.value = "";
    parts = [part];
  } else parts.push(part);
  showChips();
  changed();
}

export async function addFile(file) {
  if (!file) return;
  toast(`Looking at ${file.name || "the picture"} …`);
  try {
    const { key, kind } = await ask("/api/examples", file);
    words.value = "";
    parts = [{ kind: "example", key, at: 0, name: file.name || `a ${kind}` }];
    showChips();
    changed();
  } catch (error) {
    toast(error.message, "bad");
  }
}

/** Forgets pictures that the server has forgotten. */
export function dropExamples() {
  parts = parts.filter((part) => part.kind !== "example");
  showChips();
}

export function clear() {
  words.value = "";
  parts = [];
  showChips();
}

export function dropLast() {
  if (!parts.length) return;
  parts.pop();
  showChips();
  changed();
}

const MEANING = { like: "like", unlike: "not like", example: "like" };

function showChips() {
  chips.replaceChildren(...parts.map((part) => {
    const source = part.kind === "example"
      ? `/api/examples/${part.key}` : `/still/${part.key}?at=${part.at}`;
    const label = `${MEANING[part.kind]} ${part.name}`;
    const remove = () => {
      parts = parts.filter((other) => other !== part);
      showChips();
      changed();
    };
    return el("span", { class: part.kind === "unlike" ? "chip not" : "chip", title: label },
      el("img", { src: source, alt: "", onerror: (event) => event.target.remove() }), el("span", {}, part.kind === "unlike" ? `not ${part.name}` : part.name),
      el("button", { type: "button", "aria-label": `Leave out: ${label}`, onclick: remove }, icon("close")));
  }));
  words.placeholder = parts.length ? "add words" : "a dog jumps into water";
}

export function setFolders(folders) {
  const now = inside.value;
  const names = folders.includes(now) || !now ? folders : [now, ...folders];
  inside.replaceChildren(el("option", { value: "" }, "all folders"),
    ...names.map((name) => el("option", { value: name }, name)));
  inside.value = now;
  inside.parentElement.hidden = !names.length;
}
