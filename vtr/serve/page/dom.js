// Small tools of the page. Text of others only ever becomes text: nothing here parses markup.

export const $ = (selector, root = document) => root.querySelector(selector);

/** Makes an element: el("p", {class: "x", onclick: f}, "text", child). */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function icon(name, kind = "") {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  if (kind) svg.setAttribute("class", kind);
  svg.append(use);
  return svg;
}

/** 75.4 -> "1:15", 3675 -> "1:01:15"; with tenths "1:15.4". */
export function clock(seconds, tenths = false) {
  const whole = tenths ? Math.round(seconds * 10) / 10 : Math.floor(seconds + 0.001);
  const s = Math.floor(whole % 60), m = Math.floor(whole / 60) % 60, h = Math.floor(whole / 3600);
  const end = tenths ? `.${Math.round(whole * 10) % 10}` : "";
  const pad = (n) => String(n).padStart(2, "0");
  return (h ? `${h}:${pad(m)}` : `${m}`) + `:${pad(s)}${end}`;
}

/** "1:02 – 1:09", with tenths where a moment is short. */
export const span = (hit) => {
  const short = hit.end - hit.start < 4;
  return `${clock(hit.start, short)} – ${clock(hit.end, short)}`;
};

export function counted(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function lasting(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export class Refusal extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** Asks the server; what it refuses is thrown as its sentence. */
export async function ask(path, body, options = {}) {
  const request = { ...options, headers: {} };
  if (body instanceof Blob) Object.assign(request, { method: "POST", body });
  else if (body !== undefined) {
    Object.assign(request, { method: "POST", body: JSON.stringify(body) });
    request.headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "vtr serve does not answer. Is it still running?");
  }
  const found = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(response.status, found.error || `Error ${response.status}`);
  return found;
}

const toasts = $("#toasts");
toasts.popover = "manual"; // above open dialogs

export function toast(words, kind = "") {
  const shown = el("div", { class: `toast ${kind}` }, words);
  toasts.append(shown);
  while (toasts.children.length > 3) toasts.firstChild.remove();
  if (toasts.matches(":popover-open")) toasts.hidePopover();
  toasts.showPopover();
  setTimeout(() => {
    shown.remove();
    if (!toasts.children.length && toasts.matches(":popover-open")) toasts.hidePopover();
  }, kind ? 6000 : 2600);
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not allowed, or no secure address: the old way
    const area = el("textarea", { readonly: true, "aria-hidden": "true" });
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return toast(`The browser does not let this page copy: ${text}`, "bad");
  }
  toast(`Copied ${what}`);
}

export function remembered(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`vtr-${name}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`vtr-${name}`, JSON.stringify(value));
  } catch { /* private windows may keep nothing */ }
}
