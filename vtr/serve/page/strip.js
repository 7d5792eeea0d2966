// The scores of a whole video under the player, with the pieces that were found.

import { $, clock } from "/page/dom.js";

const strip = $("#strip"), found = $("#found"), area = $("#area"), line = $("#line"), head = $("#head"), tip = $("#tip");
const WIDTH = 1000, TOP = 12, BOTTOM = 96, STEP_SECONDS = 5, LEAST_SHARE = 0.35;
let duration = 1;
let seek = () => {};

export const onSeek = (listener) => { seek = listener; };

const place = (seconds) => (WIDTH * Math.min(Math.max(seconds / duration, 0), 1));

/** Shows nothing but the moment itself, until the scores are there. */
export function begin(hit) {
  duration = Math.max(hit.duration, hit.end, 0.1);
  strip.setAttribute("aria-valuemax", duration.toFixed(1));
  area.removeAttribute("d");
  line.removeAttribute("d");
  pieces([[hit.start, hit.end]], hit);
  at(hit.start);
}

export function draw(curve, hit) {
  const { seconds, scores } = curve;
  if (!seconds.length) return;
  const low = Math.min(...scores), high = Math.max(...scores);
  const range = Math.max(high - low, LEAST_SHARE * Math.abs(high), 1e-6); // noise stays small
  const y = (score) => BOTTOM - ((score - high + range) / range) * (BOTTOM - TOP);
  const points = seconds.map((t, n) => `${place(t).toFixed(1)} ${y(scores[n]).toFixed(1)}`);
  const first = y(scores[0]).toFixed(1), last = y(scores.at(-1)).toFixed(1);
  const path = `M0 ${first}L${points.join("L")}L${WIDTH} ${last}`;
  line.setAttribute("d", path);
  area.setAttribute("d", `${path}V100H0Z`);
  pieces(runs(curve.pieces), hit);
}

/** Neighbouring pieces that lie above the half way from the mean to the best one. */
function runs(all) {
  const means = all.map((piece) => piece[2]);
  const best = Math.max(...means), mean = means.reduce((sum, one) => sum + one, 0) / means.length;
  const joined = [];
  for (const [start, end, score] of all) {
    if (score < (best + mean) / 2 || all.length === 1) continue;
    if (joined.length && Math.abs(joined.at(-1)[1] - start) < 0.001) joined.at(-1)[1] = end;
    else joined.push([start, end]);
  }
  return joined;
}

function pieces(spans, hit) {
  const others = spans.filter(([start, end]) => end <= hit.start + 0.01 || start >= hit.end - 0.01);
  found.replaceChildren(...[...others, [hit.start, hit.end]].flatMap(([start, end], number) =>
    [[0, 100], [91, 9]].map(([top, height]) => { // a shade, and a bar below it
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      rect.setAttribute("x", place(start));
      rect.setAttribute("width", Math.max(place(end) - place(start) - 1, 3));
      rect.setAttribute("y", top);
      rect.setAttribute("height", height);
      rect.setAttribute("class", `${top ? "bar" : "shade"}${number === others.length ? " this" : ""}`);
      rect.dataset.start = start;
      return rect;
    })));
}

export function at(seconds) {
  head.style.left = `${place(seconds) / 10}%`;
  strip.setAttribute("aria-valuenow", seconds.toFixed(1));
  strip.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(duration)}`);
}

const pointed = (event) => {
  const box = strip.getBoundingClientRect();
  return (Math.min(Math.max(event.clientX - box.left, 0), box.width) / box.width) * duration;
};

strip.addEventListener("pointerdown", (event) => {
  // A found piece is entered at its start, by whichever part of it it was hit.
  const start = event.target.dataset?.start;
  seek(start === undefined ? pointed(event) : Number(start));
  if (start === undefined) strip.setPointerCapture(event.pointerId);
});
strip.addEventListener("pointermove", (event) => {
  const seconds = pointed(event);
  tip.hidden = false;
  tip.textContent = clock(seconds, duration < 60);
  tip.style.left = `${Math.min(Math.max(place(seconds) / 10, 4), 96)}%`;
  if (event.buttons && strip.hasPointerCapture(event.pointerId)) seek(seconds);
});
strip.addEventListener("pointerleave", () => { tip.hidden = true; });
strip.addEventListener("keydown", (event) => {
  const now = Number(strip.getAttribute("aria-valuenow"));
  const to = { Home: 0, End: duration, ArrowLeft: now - STEP_SECONDS, ArrowRight: now + STEP_SECONDS }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  seek(Math.min(Math.max(to, 0), duration));
});
