// The runs and results of a workspace, by protocol, with their reports.

import { $, ask, el } from "/page/dom.js";

const runs = $("#runs");
const SHOWN = [["t2v/R@1", "R@1"], ["t2v/R@5", "R@5"], ["t2v/R@10", "R@10"], ["t2v/MedR", "MedR"]];

export async function show() {
  try {
    const { runs: found } = await ask("/api/results");
    $("#report-all").hidden = !found.some((run) => run.key);
    if (!found.length) runs.replaceChildren(el("p", {}, "Nothing was evaluated in this workspace yet: vtr eval"));
    else runs.replaceChildren(...byProtocol(found));
  } catch (error) {
    runs.replaceChildren(el("p", {}, error.message));
  }
}

function byProtocol(found) {
  const groups = new Map();
  for (const run of found) {
    const name = run.protocol || "Not evaluated";
    groups.set(name, [...(groups.get(name) || []), run]);
  }
  return [...groups].map(([name, some]) => el("section", {}, el("h2", {}, name), table(some)));
}

function table(some) {
  const head = el("tr", {}, el("th", { scope: "col" }, "text to video"),
    ...SHOWN.map(([, name]) => el("th", { scope: "col" }, name)), el("th", { scope: "col" }, "queries"), el("th", {}, ""));
  return el("div", { class: "table" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...some.map(row))));
}

function row(run) {
  const metrics = run.metrics || {};
  const title = el("td", {}, run.title, run.created ? el("small", {}, run.created) : null,
    ...(run.caveats || []).map((text) => el("small", { class: "warn" }, text)));
  const first = metrics["t2v/R@1"];
  return el("tr", {}, title,
    ...SHOWN.map(([key], number) => el("td", { class: number ? null : "bar-cell" },
      metrics[key] ? metrics[key].value.toFixed(1) : "", number || !first ? null : interval(first))),
    el("td", {}, first?.n?.toLocaleString("en") ?? ""),
    el("td", {}, run.key ? el("a", { href: `/report/${run.key}`, target: "_blank", rel: "noopener" }, "Report") : ""));
}

function interval({ value, low, high }) {
  const known = low !== null && high !== null && low !== undefined && high !== undefined;
  const made = el("span", { class: "interval", title: known ? `95 % interval ${low.toFixed(1)} to ${high.toFixed(1)}` : "" });
  const range = el("i"), mark = el("b");
  range.style.left = `${known ? low : 0}%`;
  range.style.width = `${known ? Math.max(high - low, 1) : value}%`;
  mark.style.left = `${value}%`;
  made.append(range, mark);
  return made;
}
