// The list of runs: what each is, whether it lives, how it does.

import { h, fill, number, percent, seconds, ago, spark, NONE } from "./dom.js";
import { ask } from "./api.js";
import { isTyping } from "./keys.js";

const STATES = { running: "running", paused: "paused", died: "died", ended: "ended", stopped: "stopped", elsewhere: "elsewhere" };
const ORDER = { name: (run) => run.name, state: (run) => run.state, sign: (run) => run.sign, figure: (run) => run.figure?.value ?? -1, kind: (run) => run.kind };

export const stateOf = (run) => h("span.state", { class: run.state, title: run.command ?? "" }, h("i.dot", { "aria-hidden": "true" }), STATES[run.state] ?? run.state);

export async function showRuns(page) {
  page.crumbs([]);
  const chosen = new Set();
  let runs = [], sort = "sign", down = true, row = -1;
  const search = h("input", { type: "search", placeholder: "Search runs", "aria-label": "Search runs", oninput: draw });
  const kind = h("select", { "aria-label": "Kind", onchange: draw }, h("option", { value: "" }, "every kind"), ["training", "evaluation", "grading", "episodes"].map((one) => h("option", { value: one }, one)));
  const body = h("tbody"), head = h("tr"), choice = h("div.choice", { hidden: true });
  const title = h("h1", {}, "Runs"), where = h("span.muted");
  fill(page.main, h("div.head", {}, title, where), h("div.filters", {}, search, kind), h("div.scroll", { tabindex: 0, role: "group", "aria-label": "Table" }, h("table.runs", {}, h("thead", {}, head), body)), choice);

  function column(key, text, more) {
    const sorted = sort === key ? { "aria-sort": down ? "descending" : "ascending" } : {};
    return h("th", { scope: "col", ...sorted, ...more }, h("button", { type: "button", onclick: () => { down = sort === key ? !down : key !== "name"; sort = key; draw(); } }, text));
  }

  function draw() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const told = (run) => [run.name, run.kind, run.recipe, run.of, run.state].join(" ").toLowerCase();
    const shown = runs.filter((run) => (!kind.value || run.kind === kind.value) && words.every((word) => told(run).includes(word)));
    const key = ORDER[sort];
    shown.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (down ? -1 : 1));
    fill(head, h("th", { scope: "col" }, h("span.sub", {}, "")), column("name", "Run"), column("state", "State"), column("kind", "Kind", { class: "wide-only" }), h("th.wide-only", { scope: "col" }, "Progress"), column("figure", "Result", { class: "n" }), h("th.wide-only", { scope: "col" }, ""), h("th.n.wide-only", { scope: "col" }, "Tokens/s"), column("sign", "Last sign", { class: "n" }));
    fill(body, shown.map((run, place) => rowOf(run, place)));
    if (!shown.length) fill(body, h("tr", {}, h("td.empty", { colspan: 9 }, runs.length ? "No run is like that." : "There is no run in these folders yet. A training or an evaluation appears here as soon as it begins.")));
    drawChoice();
  }

  function rowOf(run, place) {
    const box = h("input", { type: "checkbox", "aria-label": `Compare ${run.name}`, onchange: () => { box.checked ? chosen.add(run.id) : chosen.delete(run.id); drawChoice(); } });
    box.checked = chosen.has(run.id);
    const progress = run.kind === "training" ? [run.stage ?? NONE, run.step ? ` ${number(run.step)}${run.steps?.[run.stage] ? ` of ${number(run.steps[run.stage])}` : ""}` : ""] : run.episodes !== undefined ? `${number(run.episodes)} samples` : NONE;
    const figure = run.figure && run.figure.value !== null && run.figure.value !== undefined ? [h("span.sub", {}, `${run.figure.name} `), h("b", {}, run.figure.name === "pass@1" ? percent(run.figure.value) : number(run.figure.value))] : NONE;
    return h("tr", { class: place === row ? "chosen" : "" }, h("td", {}, box), h("td", {}, h("a.name", { href: `#/run/${run.id}` }, run.name), h("div.sub", {}, [run.recipe, run.of].filter(Boolean).join(" · "))), h("td", {}, stateOf(run)), h("td.wide-only", {}, run.kind), h("td.wide-only", {}, progress), h("td.n", {}, figure), h("td.wide-only", {}, run.spark?.length > 1 ? spark(run.spark, `${run.figure.name} over the steps`) : ""), h("td.n.wide-only", {}, run.tokens_per_second ? number(run.tokens_per_second) : NONE), h("td.n", {}, ago(run.sign)));
  }

  function drawChoice() {
    choice.hidden = !chosen.size;
    const address = `#/compare?runs=${[...chosen].join(",")}`;
    fill(choice, h("button.main", { type: "button", disabled: chosen.size < 2, onclick: () => (location.hash = address) }, "Compare"), h("span.muted", {}, chosen.size < 2 ? "Choose another run to compare with." : `${chosen.size} runs chosen`), h("button.quiet", { type: "button", onclick: () => { chosen.clear(); draw(); } }, "clear"));
  }

  document.addEventListener("keydown", (event) => {
    if (isTyping(event)) return;
    const rows = [...body.querySelectorAll("tr")];
    if (event.key === "j" || event.key === "k") {
      row = Math.max(0, Math.min(rows.length - 1, row + (event.key === "j" ? 1 : -1)));
      rows.forEach((one, place) => one.classList.toggle("chosen", place === row));
      rows[row]?.querySelector("a")?.focus();
    }
  }, { signal: page.signal });

  async function look() {
    const found = await ask("runs", {}, page.signal);
    const same = JSON.stringify(found.runs) === JSON.stringify(runs);
    runs = found.runs;
    where.textContent = found.folders.join("  ");
    if (!same || !body.children.length) draw();
  }
  await look();
  const timer = setInterval(() => document.hidden || look().catch(() => {}), 2000);
  page.signal.addEventListener("abort", () => clearInterval(timer));
}
