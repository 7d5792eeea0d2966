// The player: the file itself where the browser takes it, else previews that vtr makes of it.

import { $, ask, clock, copy, el, span, toast } from "/page/dom.js";
import * as strip from "/page/strip.js";

const dialog = $("#player"), video = $("#video"), waiting = $("#waiting"), sorry = $("#sorry");
const STEP_SECONDS = 5;

let hit = null;       // the moment that is shown
let opened = 0;       // counts openings: what comes late of an earlier one is dropped
let windowSeconds = 0; // length of a preview's part; 0 where the file itself is played
let part = 0;         // which part is loaded
let origin = 0;       // of the first frame on the browser's clock; all other times count from there
let loops = false;
let doing = {};
let question = null;

export const onAction = (listeners) => { doing = listeners; };
export const isOpen = () => dialog.open;
export const shown = () => hit;

const offset = () => part * windowSeconds;
const now = () => offset() + video.currentTime - origin;
const parts = () => Math.max(1, Math.ceil(hit.duration / windowSeconds - 0.5));

export async function open(moment, query, { before, after }) {
  hit = moment;
  question = query;
  const mine = ++opened;
  stop();
  $("#player-name").textContent = hit.name;
  $("#player-times").textContent = [span(hit), hit.folder,
    hit.level === undefined ? "" : `score ${hit.score.toFixed(3)}`, `video of ${clock(hit.duration)}`].filter(Boolean).join("  ·  ");
  $("#player-path").textContent = hit.path;
  $('[data-do="save"]').href = `/clip/${hit.key}?start=${hit.start.toFixed(3)}&end=${hit.end.toFixed(3)}`;
  $("#previous").disabled = !before;
  $("#following").disabled = !after;
  sorry.hidden = true;
  if (!dialog.open) dialog.showModal();
  strip.begin(hit);
  wait("");
  curve(mine);
  try {
    const facts = await ask(`/api/facts/${hit.key}`);
    if (mine !== opened) return;
    hit = { ...hit, duration: hit.duration || facts.seconds };
    if (facts.type && video.canPlayType(facts.type)) playFile(facts);
    else playPreview(facts.window, hit.start);
  } catch (error) {
    if (mine === opened) regret(error.message);
  }
}

async function curve(mine) {
  if (!question) return;
  try {
    const found = await ask("/api/curve", { ...question, video: hit.key });
    if (mine === opened) strip.draw(found, hit);
  } catch { /* the strip shows the moment alone */ }
}

function playFile(facts) {
  windowSeconds = 0;
  part = 0;
  origin = facts.start;
  const fallBack = () => playPreview(facts.window, hit.start);
  begin(`/video/${hit.key}`, hit.start, fallBack);
}

function playPreview(seconds, from) {
  windowSeconds = seconds;
  origin = 0;
  part = Math.min(Math.floor(from / seconds), parts() - 1);
  wait("The browser cannot play this format; vtr is making a preview of this part.");
  begin(`/window/${hit.key}/${part}`, from - offset(), explain);
}

/** Loads a source and plays it from a time; `failed` is called where the browser refuses it. */
function begin(source, from, failed) {
  const mine = opened;
  video.onerror = () => mine === opened && failed();
  video.onloadedmetadata = () => {
    if (mine !== opened) return;
    if (!video.videoWidth) return failed(); // sound alone: pictures of a codec that it lacks
    if (video.duration + 0.5 < origin + from) return failed(); // it counts from elsewhere
    video.currentTime = Math.max(0, from + origin);
  };
  video.oncanplay = () => {
    if (mine !== opened) return;
    waiting.hidden = true;
    if (windowSeconds && part + 1 < parts()) fetch(`/window/${hit.key}/${part + 1}`, { method: "HEAD" }).catch(() => {});
    video.oncanplay = null;
  };
  video.src = source;
  start();
}

function start() {
  video.play()?.catch((error) => {
    if (error.name !== "NotAllowedError") return;
    video.muted = true; // no sound without a click
    video.play().catch(() => {});
  });
}

/** Asks why a preview could not be had: a player tells no reasons. */
async function explain() {
  const mine = opened;
  try {
    const response = await fetch(`/window/${hit.key}/${part}`, { headers: { range: "bytes=0-1" } });
    const said = response.ok ? "The browser cannot play the preview either." : (await response.json()).error;
    if (mine === opened) regret(said);
  } catch {
    if (mine === opened) regret("vtr serve does not answer. Is it still running?");
  }
}

function wait(words) {
  waiting.hidden = false;
  $("p", waiting).textContent = words;
}

function regret(words) {
  stop();
  waiting.hidden = true;
  sorry.hidden = false;
  $("p", sorry).replaceChildren("This video cannot be shown. ", words);
}

function stop() {
  video.onerror = video.onloadedmetadata = video.oncanplay = null;
  video.pause();
  video.removeAttribute("src");
  video.load();
}

export function seek(seconds) {
  if (!video.src) return;
  strip.at(seconds);
  if (windowSeconds && Math.min(Math.floor(seconds / windowSeconds), parts() - 1) !== part) playPreview(windowSeconds, seconds);
  else video.currentTime = Math.max(0, seconds - offset() + origin);
}

export function close() {
  opened += 1;
  stop();
  if (dialog.open) dialog.close();
}

video.addEventListener("timeupdate", () => {
  if (!hit || !video.src) return;
  strip.at(now());
  if (loops && now() >= hit.end) seek(hit.start);
});
video.addEventListener("ended", () => {
  if (loops) seek(hit.start), start();
  else if (windowSeconds && part + 1 < parts()) playPreview(windowSeconds, now());
});
strip.onSeek(seek);

function loop() {
  loops = !loops;
  $('[data-do="loop"]').setAttribute("aria-pressed", String(loops));
  toast(loops ? "The moment repeats" : "The video goes on");
}

const actions = {
  more: () => doing.more(hit),
  less: () => doing.less(hit),
  path: () => copy(hit.path, "the path"),
  save: () => saveClip(),
  loop,
};

function saveClip() {
  toast("The clip is being cut …");
}

$("#actions").addEventListener("click", (event) => actions[event.target.closest("[data-do]")?.dataset.do]?.());
$("#previous").addEventListener("click", () => doing.step(-1));
$("#following").addEventListener("click", () => doing.step(1));
$("#close").addEventListener("click", close);
dialog.addEventListener("click", (event) => event.target === dialog && close()); // beside it
dialog.addEventListener("close", () => {
  opened += 1;
  stop();
  doing.closed();
});

const KEYS = {
  " ": () => (video.paused ? start() : video.pause()),
  ArrowLeft: () => seek(Math.max(0, now() - STEP_SECONDS)),
  ArrowRight: () => seek(Math.min(hit.duration, now() + STEP_SECONDS)),
  j: () => doing.step(1),
  k: () => doing.step(-1),
  0: () => seek(hit.start),
  l: loop,
  m: actions.more,
  n: actions.less,
  c: actions.path,
  d: () => $('[data-do="save"]').click(),
};

/** Does what a key means here; returns whether it means something. */
export function key(event) {
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || (event.key === " " && event.target.closest("button, a"))) return false;
  act();
  return true;
}
