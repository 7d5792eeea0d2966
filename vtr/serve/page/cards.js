// Moments as cards: a still that comes when it is seen, and moves while it is pointed at.

import { $, clock, el, icon, span } from "/page/dom.js";

// A browser opens six connections to a server: a file that does not answer must not take them all.
const MOST_AT_ONCE = 3;
const FRAMES = 8, FRAME_MILLISECONDS = 170, PATIENCE = 130;
const waiting = [];
let loading = 0;

function load(image) {
  waiting.push(image);
  next();
}

function next() {
  while (loading < MOST_AT_ONCE && waiting.length) {
    const image = waiting.shift();
    if (!image.isConnected) continue;
    loading += 1;
    const done = () => {
      loading -= 1;
      next();
    };
    image.onload = () => {
      image.classList.add("there");
      done();
    };
    image.onerror = () => {
      image.replaceWith(el("span", { class: "none" }, icon("broken")));
      done();
    };
    image.src = image.dataset.src;
  }
}

const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    sight.unobserve(entry.target);
    load(entry.target);
  }
}, { rootMargin: "300px" });

const address = (hit) => `at=${Math.max(0, hit.best).toFixed(3)}`;

/** Makes a card of a moment, or of a video as a whole. */
export function card(hit, { play, more, less, share, number }) {
  const whole = hit.start === undefined;
  const shown = whole ? { ...hit, start: 0, end: hit.duration, best: hit.duration / 2 } : hit;
  const image = el("img", { alt: "", "data-src": `/still/${hit.key}?${address(shown)}`, draggable: "false" });
  const reel = el("span", { class: "reel" }), progress = el("span", { class: "progress" });
  const where = whole ? "" : `, ${span(hit)}`;
  const shot = el("span", { class: "shot" }, image, reel, progress,
    whole ? null : el("span", { class: "when" }, span(hit)),
    el("span", { class: "long" }, clock(hit.duration, hit.duration < 1)));
  const caption = el("span", { class: "caption" },
    el("span", { class: "name" }, hit.name, hit.folder ? el("span", { class: "folder" }, hit.folder) : null));
  if (!whole) {
    const gauge = el("i");
    gauge.style.setProperty("--share", `${Math.round(100 * share)}%`);
    const meaning = `cosine ${hit.score.toFixed(3)}; stands out more than ${Math.floor(100 * hit.level + 1e-9)} % of unrelated sentences do here`;
    caption.append(el("span", { class: "score", title: meaning }, gauge, hit.score.toFixed(2)));
  }
  const button = el("button", { class: "open", type: "button", "aria-label": `Play ${hit.name}${where}`, title: hit.folder ? `${hit.folder}/${hit.name}` : hit.name, onclick: () => play(shown) }, shot, caption);
  const quick = whole ? null : el("span", { class: "quick" },
    el("button", { type: "button", tabindex: "-1", title: "More like this (M)", "aria-label": `More like ${hit.name}`, onclick: () => more(hit) }, icon("more")),
    el("button", { type: "button", tabindex: "-1", title: "Not like this (N)", "aria-label": `Not like ${hit.name}`, onclick: () => less(hit) }, icon("less")));
  const item = el("li", { class: "card" }, button, quick);
  item.style.animationDelay = `${Math.min(number, 14) * 22}ms`;
  item.hit = shown;
  animate(item, shown, reel, progress);
  sight.observe(image);
  return item;
}

function animate(item, hit, reel, progress) {
  let timer = 0, picture = null;
  const start = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (!picture) {
        picture = new Image();
        picture.src = `/film/${hit.key}?start=${hit.start.toFixed(3)}&end=${hit.end.toFixed(3)}&best=${hit.best.toFixed(3)}`;
      }
      picture.decode().then(() => run(0), () => {});
    }, PATIENCE);
  };
  const run = (frame) => {
    if (!timer) return;
    const box = reel.getBoundingClientRect(), width = picture.naturalWidth / FRAMES;
    const scale = Math.max(box.width / width, box.height / picture.naturalHeight);
    const left = (width * scale - box.width) / 2, top = (picture.naturalHeight * scale - box.height) / 2;
    reel.style.backgroundImage = `url("${picture.src}")`;
    reel.style.backgroundSize = `${width * FRAMES * scale}px ${picture.naturalHeight * scale}px`;
    reel.style.backgroundPosition = `${-frame * width * scale - left}px ${-top}px`;
    reel.classList.add("runs");
    progress.style.width = `${(100 * (frame + 1)) / FRAMES}%`;
    timer = setTimeout(run, FRAME_MILLISECONDS, (frame + 1) % FRAMES);
  };
  const stop = () => {
    clearTimeout(timer);
    timer = 0;
    reel.classList.remove("runs");
    progress.style.width = "0";
  };
  item.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && start());
  item.addEventListener("pointerleave", stop);
  item.addEventListener("focusin", () => $(".open", item).matches(":focus-visible") && start());
  item.addEventListener("focusout", stop);
}

export const same = (one, other) => one && other && one.key === other.key && one.start === other.start;
export const isSure = (hit, level = 0) => (hit.level ?? 1) >= level;

/** Fills a list; its cards are walked with the arrow keys. What is less sure comes under a line. */
export function fill(grid, hits, doing, sure = 0) {
  const held = grid.contains(document.activeElement) && document.activeElement.closest(".card")?.hit;
  const scores = hits.map((hit) => hit.score ?? 0);
  const best = Math.max(...scores, 0.0001), least = Math.min(...scores, best);
  const share = (hit) => 0.25 + 0.75 * ((hit.score - least) / (best - least || 1));
  grid.replaceChildren(...hits.map((hit, number) => card(hit, { ...doing, share: share(hit), number })));
  const unsure = [...grid.children].find((item) => !isSure(item.hit, sure));
  if (unsure && hits.some((hit) => isSure(hit, sure))) unsure.before(el("li", { class: "divider" }, "Less sure: these stand out no more than they do for some unrelated sentences"));
  const buttons = [...grid.querySelectorAll(".open")];
  buttons.forEach((button, number) => { button.tabIndex = number ? -1 : 0; });
  if (held) focusCard(buttons, Math.max(0, buttons.findIndex((button) => same(button.parentElement.hit, held))));
}

/** Moves the focus between cards; returns whether the key was one for it. */
export function walk(grid, key) {
  const buttons = [...grid.querySelectorAll(".open")];
  const now = buttons.indexOf(document.activeElement);
  if (now < 0) return false;
  const top = buttons[0].offsetTop;
  const columns = Math.max(1, buttons.filter((button) => button.getBoundingClientRect().top === buttons[0].getBoundingClientRect().top && button.offsetTop === top).length);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -now, End: buttons.length - 1 - now }[key];
  if (step === undefined) return false;
  const to = now + step;
  if (to < 0) $("#words").focus();
  else focusCard(buttons, Math.min(to, buttons.length - 1));
  return true;
}

export function focusCard(buttons, number) {
  buttons.forEach((button, other) => { button.tabIndex = other === number ? 0 : -1; });
  buttons[number]?.focus();
  buttons[number]?.scrollIntoView({ block: "nearest" });
}
