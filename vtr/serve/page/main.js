// The page: searching, what is shown, the keys, and what the server says of its library.

import { $, ask, copy, counted, el, icon, lasting, remember, remembered, toast } from "/page/dom.js";
import { fill, focusCard, isSure, same, walk } from "/page/cards.js";
import * as history_ from "/page/history.js";
import * as player from "/page/player.js";
import * as query from "/page/query.js";
import * as results from "/page/results.js";

const words = $("#words"), grid = $("#grid"), panel = $("#panel"), summary = $("#summary");
const TYPING_MILLISECONDS = 380, BUSY_MILLISECONDS = 250, LEAST_LETTERS = 3;
const OFTEN = 1000, SELDOM = 8000;

let state = { phase: "indexing", version: -1, work: null, notes: [] };
let overview = { videos: 0, some: [], failed: [], folders: [] };
let answer = null;
let asked = null;      // the question that `answer` answers
let running = null;    // the search that is under way
let typing = 0;
let wantsNearest = false;
let isDown = false;    // whether the server did not answer last
let isOld = false;     // whether the folder changed while the player hid the moments

if (new URLSearchParams(location.search).has("token")) { // the cookie has it now
  const kept = new URLSearchParams(location.search);
  kept.delete("token");
  history.replaceState(null, "", kept.size ? `/?${kept}` : "/");
}

// ---- searching

/**
 * Searches for what the field and the filters say; `how` tells what becomes of the address: "push",
 * "replace", or "keep" it; "again" keeps the nearest in view, too.
 */
async function search(how = "push") {
  clearTimeout(typing);
  history_.close();
  running?.abort();
  running = null;
  wantsNearest = wantsNearest && how === "again";
  isOld = false;
  if (how === "push" || how === "replace") history[how === "push" && query.toAddress() !== location.pathname + location.search ? "pushState" : "replaceState"](null, "", query.toAddress());
  if (query.isEmpty()) return home();
  if (how === "push") history_.keep(words.value);
  if (state.phase !== "ready") return show(); // it is asked when the library is there
  running = new AbortController();
  const mine = running, body = query.question();
  grid.classList.add("stale");
  setTimeout(() => mine === running && $("#search").setAttribute("aria-busy", "true"), BUSY_MILLISECONDS);
  try {
    const found = await ask("/api/search", { ...body, top: 60 }, { signal: mine.signal });
    if (mine !== running) return;
    const sure = found.hits.filter((hit) => isSure(hit, found.match_level));
    answer = { ...found, hits: [...sure, ...found.hits.filter((hit) => !sure.includes(hit))] };
    asked = body;
  } catch (error) {
    if (error.name === "AbortError" || mine !== running) return;
    if (error.status === 404 && body.examples.length) query.dropExamples();
    answer = { failed: error.message, hits: [], nearest: [] };
  }
  running = null;
  show();
}

function home() {
  answer = asked = null;
  show();
}

const doing = {
  play: (hit) => open(hit),
  more: (hit) => { player.close(); query.add("like", hit); scrollTo({ top: 0, behavior: "smooth" }); },
  less: (hit) => { player.close(); query.add("unlike", hit); },
};

const listed = () => (answer ? (wantsNearest ? answer.nearest : answer.hits) : overview.some.map(whole));
const whole = (video) => ({ ...video, start: 0, end: video.duration, best: video.duration / 2 });

function open(hit) {
  const list = listed(), place = list.findIndex((other) => same(other, hit));
  player.open(hit, asked, { before: place > 0, after: place >= 0 && place + 1 < list.length });
}

function step(by) {
  const list = listed(), place = list.findIndex((other) => same(other, player.shown()));
  if (list[place + by]) open(list[place + by]);
}

player.onAction({ more: doing.more, less: doing.less, step, closed: () => {
  if (isOld && !query.isEmpty()) search("again");
  const buttons = [...document.querySelectorAll("main .open")];
  const place = buttons.findIndex((button) => same(button.parentElement.hit, player.shown()));
  if (place >= 0) focusCard(buttons, place);
} });
query.onChange(() => search("push"));
history_.onPick((text) => {
  words.value = text;
  search("push");
});

// ---- what is shown

function show() {
  const looking = !query.isEmpty();
  const isResults = location.hash === "#results";
  $("#search-view").hidden = isResults;
  $("#results-view").hidden = !isResults;
  $("#to-results").toggleAttribute("aria-current", isResults);
  document.body.dataset.view = looking || answer ? "found" : "home";
  $("#filters").hidden = !(looking || answer) || state.phase !== "ready";
  const hits = answer && state.phase === "ready" ? listed() : []; // of a folder that is empty now, none
  $("#cut-list").hidden = !hits.length;
  summary.textContent = told(hits);
  grid.classList.remove("stale");
  if (!running) $("#search").removeAttribute("aria-busy");
  fill(grid, hits, doing, wantsNearest ? 0 : answer?.match_level);
  $("#sampler").hidden = Boolean(looking || answer || query.onlyAvoids() || state.phase !== "ready");
  if (!$("#sampler").hidden && $("#some").dataset.version !== String(state.version)) {
    $("#some").dataset.version = state.version;
    fill($("#some"), overview.some, doing);
  }
  showBroken();
  const shown = whatPanel(looking, hits);
  panel.hidden = !shown;
  panel.replaceChildren(...(shown || []));
  document.title = looking && words.value.trim() ? `${words.value.trim()} · vtr` : `${state.title || "vtr"} · vtr`;
}

function told(hits) {
  if (!hits.length) return "";
  const firm = wantsNearest ? hits : hits.filter((hit) => isSure(hit, answer.match_level));
  const videos = new Set(firm.map((hit) => hit.key)).size;
  const moments = counted(firm.length, "moment") + (firm.length === videos ? "" : ` in ${counted(videos, "video")}`);
  return [
    answer.num_truncated ? "the end of the sentence was not read" : "",
    wantsNearest ? `nearest: ${moments}` : moments,
    firm.length < hits.length ? `${hits.length - firm.length} less sure` : "",
    `${Math.round(answer.milliseconds)} ms`,
  ].filter(Boolean).join(" · ");
}

function whatPanel(looking, hits) {
  if (isDown && state.phase !== "ready") return message("broken", "vtr serve does not answer", "When it runs again, this page goes on by itself.");
  if (state.phase === "indexing") return indexing(looking);
  if (state.phase === "empty") return message("picture", "No videos yet", `Put videos into ${state.root}, in sub-folders or not. They appear here by themselves.`);
  if (state.phase === "failed") return message("broken", "This cannot be searched", state.error);
  if (query.onlyAvoids()) return message("search", "What should be seen?", "So far this says only what should not. Add some words or a picture.");
  if (!answer || hits.length) return null;
  if (answer.failed) return message("broken", "That did not work", answer.failed);
  const filtered = $("#inside").value || $("#length").value;
  if (!answer.nearest.length) {
    return message("search", "Nothing left to look at", filtered ? "No video fits the filters." : "None of the videos could be read.");
  }
  const level = Math.floor(100 * answer.level + 1e-9);
  const shown = message("search", "No match", `It stands out more than ${level} % of unrelated sentences do in this folder; a match needs ${Math.round(100 * answer.match_level)} %.`);
  const button = el("button", { class: "button", type: "button", id: "nearest" }, "Show the nearest anyway");
  button.addEventListener("click", () => {
    wantsNearest = true;
    show();
    $(".open", grid)?.focus();
  });
  return [...shown, button];
}

const message = (art, title, words_) => [icon(art, "art"), el("h2", {}, title), el("p", {}, words_ || "")];

function indexing(looking) {
  const work = state.work, known = Boolean(work?.total && work.done);
  const bar = el("i"), meter = el("div", { class: known ? "meter" : "meter unknown", role: "progressbar", "aria-label": "Indexing" }, bar);
  if (known) bar.style.width = `${(100 * work.done) / work.total}%`;
  const left = known ? (work.seconds / work.done) * (work.total - work.done) : 0;
  const title = looking ? "One moment: the videos are being looked at" : "Getting to know your videos";
  return [icon("picture", "art"), el("h2", {}, title),
    el("p", {}, "This happens once. Later only new and changed videos are looked at."), meter,
    el("p", { class: "figures" },
      el("span", {}, known ? `${work.done.toLocaleString("en")} of ${counted(work.total, "video")}` : work?.remark || "starting"),
      el("span", {}, known ? [work.remark, left > 1 ? `about ${lasting(left)} left` : ""].filter(Boolean).join(" · ") : "")),
    ...(state.notes.length ? [el("pre", {}, state.notes.join("\n"))] : [])];
}

function showBroken() {
  const failed = overview.failed, broken = $("#broken");
  broken.hidden = !failed.length || state.phase !== "ready";
  const number = overview.num_failed || 0;
  $("summary", broken).textContent = `${counted(number, "video")} of ${overview.videos.toLocaleString("en")} cannot be searched`;
  $("ul", broken).replaceChildren(...failed.map((video) => el("li", {}, el("b", {}, video.folder ? `${video.folder}/${video.name}` : video.name), el("span", {}, video.error))));
}

// ---- the library as the server sees it

async function look() {
  let pause = SELDOM;
  try {
    const before = state;
    state = await ask("/api/state");
    isDown = false;
    if (state.phase !== "ready" || state.work) pause = OFTEN;
    $("#place").textContent = state.work && state.phase === "ready" ? `${state.title} · looking at new videos` : state.title;
    $("#place").title = state.root;
    $("#to-results").hidden = !state.results;
    if (state.version !== before.version) {
      overview = await ask("/api/library");
      query.setFolders(overview.folders);
      $("#lead").textContent = state.phase === "ready" ? `${counted(overview.videos, "video")}, ${lasting(overview.seconds)} in ${state.title}` : "";
      if (before.version > 0) toast(`The folder has changed: ${counted(overview.videos, "video")}`);
      isOld = player.isOpen();
      if (!query.isEmpty() && !isOld) await search("again");
      else show();
    } else if (state.phase !== "ready" || before.phase !== state.phase) show();
    if (state.phase === "ready" && state.error && state.error !== before.error) toast(`The new videos are not here yet: ${state.error}`, "bad");
  } catch (error) {
    $("#place").textContent = error.message;
    isDown = !error.status;
    if (state.phase !== "ready") show();
    pause = 2 * OFTEN;
  }
  setTimeout(look, document.hidden ? 2 * SELDOM : pause);
}

// ---- hands

$("#search").addEventListener("submit", (event) => {
  event.preventDefault();
  const chosen = history_.current();
  if (chosen !== undefined) words.value = chosen;
  search("push");
});
words.addEventListener("input", () => {
  history_.open();
  clearTimeout(typing);
  const said = query.read(words.value).texts[0] || "";
  if (!said || said.length >= LEAST_LETTERS) typing = setTimeout(() => search("replace"), TYPING_MILLISECONDS);
});
words.addEventListener("focus", () => !words.value && history_.open());
words.addEventListener("click", () => history_.open());
words.addEventListener("blur", () => history_.close());
words.addEventListener("keydown", (event) => {
  const down = event.key === "ArrowDown";
  if (down || event.key === "ArrowUp") {
    const cards = [...document.querySelectorAll("main .open")].filter((button) => button.offsetParent);
    event.preventDefault();
    if (down && cards.length && $("#history").hidden && words.value) focusCard(cards, 0);
    else history_.move(down ? 1 : -1);
  } else if (event.key === "/" && !words.value) event.preventDefault(); // the field has the focus already
  else if (event.key === "Backspace" && !words.value) query.dropLast();
  else if (event.key === "Escape") {
    if ($("#history").hidden) {
      query.clear();
      search("push");
    } else history_.close();
    event.stopPropagation();
  }
});
for (const filter of [$("#inside"), $("#length"), $("#all")]) filter.addEventListener("change", () => search("push"));

$("#pick").addEventListener("click", () => $("#file").click());
$("#file").addEventListener("change", () => {
  query.addFile($("#file").files[0]);
  $("#file").value = "";
});
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  $("#drop").hidden = false;
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("#drop").hidden = true; });
addEventListener("drop", (event) => {
  $("#drop").hidden = true;
  if (!holdsFiles(event)) return;
  event.preventDefault();
  player.close();
  query.addFile(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files || [])].find((one) => /^(image|video)\//.test(one.type));
  if (file) query.addFile(file);
});

function copyCutList() {
  const hits = answer ? listed() : [];
  if (!hits.length) return;
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = hits.map((hit) => [cell(hit.path), hit.start.toFixed(3), hit.end.toFixed(3), hit.score.toFixed(4)].join(","));
  copy(["video,start_seconds,end_seconds,score", ...lines, ""].join("\n"), `a cut list of ${counted(hits.length, "moment")}`);
}
$("#cut-list").addEventListener("click", copyCutList);

function changeTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  remember("theme", root.dataset.theme);
}
const theme = remembered("theme", "");
if (theme) document.documentElement.dataset.theme = theme;
$("#theme").addEventListener("click", changeTheme);
$("#keys").addEventListener("click", () => $("#help").showModal());
$("#help").addEventListener("click", (event) => event.target === $("#help") && $("#help").close());
$("#brand").addEventListener("click", (event) => {
  event.preventDefault();
  query.clear();
  history.pushState(null, "", "/");
  search("keep");
});

const focused = () => document.activeElement?.closest?.(".card")?.hit;
function write() {
  if (location.hash) location.hash = "";
  show();
  words.focus();
  words.select();
}
const KEYS = {
  "/": write,
  "?": () => $("#help").showModal(),
  t: changeTheme,
  x: copyCutList,
  m: () => focused() && doing.more(focused()),
  n: () => focused() && doing.less(focused()),
  c: () => focused() && copy(focused().path, "the path"),
  d: () => {
    const hit = focused();
    if (!hit) return;
    toast("The clip is being cut …");
    el("a", { href: `/clip/${hit.key}?start=${hit.start.toFixed(3)}&end=${hit.end.toFixed(3)}`, download: true }).click();
  },
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("#help").open) {
    if ((event.ctrlKey || event.metaKey) && event.key === "k" && !player.isOpen()) {
      event.preventDefault();
      write();
    }
    return;
  }
  if (player.isOpen()) {
    if (player.key(event)) event.preventDefault();
    return;
  }
  if (event.target.closest("input, select, textarea")) return;
  const walked = [grid, $("#some")].some((list) => walk(list, event.key));
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (walked || act) event.preventDefault();
  if (!walked) act?.();
});

addEventListener("popstate", () => {
  player.close();
  query.fromAddress();
  if (location.hash === "#results") results.show();
  if (location.hash !== "#results") search("keep");
  else show();
});
addEventListener("hashchange", () => {
  if (location.hash === "#results") results.show();
  show();
});

query.fromAddress();
if (location.hash === "#results") results.show();
show();
look();
if (!matchMedia("(hover: none)").matches) words.focus({ preventScroll: true });
