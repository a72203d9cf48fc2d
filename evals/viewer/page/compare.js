// Several runs: their curves on one another, what differs in their recipes, and evaluations task by task.

import { h, fill, number, percent } from "./dom.js";
import { ask, follow } from "./api.js";
import { showCurves } from "./curves.js";
import { comparison } from "./results.js";

export async function showCompare(page) {
  const ids = (page.query.runs ?? "").split(",").filter(Boolean);
  if (ids.length < 2) throw new Error("two runs are needed to compare; choose them in the list");
  const runs = await Promise.all(ids.map((id) => ask("run", { run: id }, page.signal)));
  page.crumbs([["compare"]]);
  const { rows } = await ask("differences", { runs: ids.join(",") }, page.signal);
  const hue = (place) => ({ "--c": `var(--s${1 + (place % 8)})` });
  const told = (value) => (value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const pairs = runs.slice(1).filter((run) => run.kind !== "training" && runs[0].kind !== "training");
  const curves = h("div"), tables = h("div");
  const settings = rows.length
    ? h("div.scroll", { tabindex: 0, role: "group", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Setting"), runs.map((run, place) => h("th", { scope: "col" }, h("i.swatch", { vars: hue(place) }), run.name)))), h("tbody", {}, rows.map((row) => h("tr", {}, h("td", {}, h("code", {}, row.key)), ids.map((id) => h("td", {}, told(row.values[id]))))))))
    : h("p.muted", {}, "Nothing: their recipes are the same.");
  fill(page.main, h("h1", {}, `${number(runs.length)} runs`), h("div.legend", {}, runs.map((run, place) => h("span", { vars: hue(place) }, h("i"), h("a", { href: `#/run/${run.id}` }, run.name)))), h("details.group", { open: rows.length <= 8 }, h("summary", {}, "What differs ", h("span.count.muted", {}, rows.length ? number(rows.length) : "")), settings), tables, curves);
  if (pairs.length) fill(tables, await Promise.all(pairs.map(async (run) => h("section", {}, h("h2", {}, `${run.name} against ${runs[0].name}`), await comparison(runs[0].id, run.id, page.signal)))));
  const drawn = ids.filter((_, place) => runs[place].stages.length), live = new EventTarget();
  if (!drawn.length) return;
  await showCurves({ ...page, main: curves, live }, { keys: () => true, runs: drawn });
  drawn.forEach((id) => follow(id, page.signal, (now) => live.dispatchEvent(new CustomEvent("news", { detail: { ...now, run: id } }))));
}
