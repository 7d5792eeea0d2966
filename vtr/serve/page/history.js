// The searches before, under the field.

import { $, el, icon, remember, remembered } from "/page/dom.js";

const words = $("#words"), list = $("#history");
const MOST = 30;
let chosen = -1;
let shown = [];
let pick = () => {};

export const onPick = (listener) => { pick = listener; };

export function keep(text) {
  if (!text.trim()) return;
  const others = remembered("history", []).filter((other) => other !== text.trim());
  remember("history", [text.trim(), ...others].slice(0, MOST));
}

const forget = (text) => remember("history", remembered("history", []).filter((other) => other !== text));

export function open() {
  const typed = words.value.trim().toLowerCase();
  shown = remembered("history", []).filter((text) => text.toLowerCase() !== typed && text.toLowerCase().includes(typed)).slice(0, 8);
  chosen = -1;
  list.replaceChildren(...shown.map((text, number) => el("li",
    { role: "option", id: `was-${number}`, "aria-selected": "false", onpointerdown: (event) => take(event, text) },
    icon("clock"), el("span", {}, text),
    el("button", { type: "button", tabindex: "-1", "aria-label": `Forget: ${text}` }, icon("close")))));
  list.hidden = !shown.length;
  words.setAttribute("aria-expanded", String(!list.hidden));
}

export function close() {
  list.hidden = true;
  chosen = -1;
  words.setAttribute("aria-expanded", "false");
  words.removeAttribute("aria-activedescendant");
}

function take(event, text) {
  event.preventDefault(); // the field keeps the focus
  if (event.target.closest("button")) {
    forget(text);
    return open();
  }
  close();
  pick(text);
}

/** Walks with the arrow keys; returns whether it did. */
export function move(step) {
  if (list.hidden) {
    if (step > 0) open();
    if (list.hidden) return false;
  }
  chosen = (chosen + step + shown.length + 1) % (shown.length + 1);
  [...list.children].forEach((item, number) => item.setAttribute("aria-selected", String(number === chosen)));
  if (chosen < shown.length && chosen >= 0) {
    words.setAttribute("aria-activedescendant", `was-${chosen}`);
    list.children[chosen].scrollIntoView({ block: "nearest" });
  } else words.removeAttribute("aria-activedescendant");
  return true;
}

/** The search that is chosen with the keys, if one is. */
export const current = () => (list.hidden ? undefined : shown[chosen]);
