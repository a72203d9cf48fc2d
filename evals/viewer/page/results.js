// What evaluations came to: pass@k, by repository and difficulty, and one against another.

import { h, fill, number, percent, signed, seconds, command } from "./dom.js";
import { ask } from "./api.js";

const STAGES = ["start", "midtrain", "sft", "distill", "rl", "best", "control", "trivial", "gold", "empty"];

export async function showResults(page) {
  const { run } = page;
  if (run.kind === "training") return showTraining(page);
  if (run.kind === "episodes") return fill(page.main, h("p.empty", {}, "A file of episodes has no verdicts of its own."));
  const draw = async () => {
    const found = await ask("evaluation", { run: run.id }, page.signal);
    fill(box, head(found), families(found), breakdowns(found), worthOf(found), passesOf(found, page.base));
  };
  const box = h("div"), against = h("div");
  fill(page.main, box, against);
  await draw();
  let sign = run.sign;
  page.live.addEventListener("news", ({ detail: now }) => { if (now.sign !== sign) { sign = now.sign; draw().catch(() => {}); } });
  await chooseOther(page, against);
}

const fact = (name, value, more) => h("div", {}, h("dt", {}, name), h("dd", {}, value, more && h("span.sub", {}, ` ${more}`)));
const intervalOf = (interval) => (interval ? `${percent(interval[0])} to ${percent(interval[1])}` : "");

function head({ summary, settings, progress }) {
  const ks = Object.keys(summary).filter((key) => /^pass@\d+$/.test(key) && key !== "pass@1");
  return h("div", {}, h("dl.facts", {}, fact("pass@1", percent(summary["pass@1"]), intervalOf(summary.interval)), ks.map((key) => fact(key, percent(summary[key]))), fact("tasks graded", `${number(summary.n)} of ${number(summary.num_tasks)}`), fact("samples", number(summary.num_predictions), progress?.total ? `of ${number(progress.total)}` : ""), fact("mean score", number(summary.mean_score)), fact("infrastructure failures", number(summary.num_infrastructure_failures)), fact("ungradable", number(summary.num_ungradable)), summary.num_tokens ? fact("tokens", number(summary.num_tokens)) : null, fact("seconds an episode", number(summary.mean_seconds, 1)), progress?.concurrency ? fact("at once", number(progress.concurrency)) : null));
}

function families({ families: found }) {
  const names = Object.keys(found);
  if (names.length < 2) return null;
  return h("section", {}, h("h2", {}, "By family"), tableOf(names.map((name) => [name || "–", found[name]])));
}

function breakdowns({ breakdown }) {
  const labels = Object.entries(breakdown);
  if (!labels.length) return null;
  const told = { repo: "By repository", difficulty: "By difficulty" };
  return h("div.columns", {}, labels.map(([label, values]) => h("section", {}, h("h2", {}, told[label] ?? `By ${label}`), tableOf(Object.entries(values).sort(([, a], [, b]) => b.n - a.n)))));
}

// What an audit of the tasks says of the figures: on sound tasks, class by class, with the graders' own errors counted in.
function worthOf({ worth }) {
  if (!worth?.rows.length) return null;
  const rows = worth.rows.map((row) => h("tr", {}, h("td", {}, row.what), h("td.n", {}, row.tasks), h("td.n", {}, percent(row["pass@1"])), h("td", {}, meterOf(row))));
  const sound = worth.against_on_sound;
  const told = sound && `Against the other run on ${number(sound.n)} sound tasks: ${signed(100 * sound.mean, 1)} points (${signed(100 * sound.low, 1)} to ${signed(100 * sound.high, 1)}), McNemar p ${number(sound.p_value)}.`;
  return h("section", {}, h("h2", {}, "What it is worth ", h("span.sub", {}, `${number(worth.audited)} of ${number(worth.num_tasks)} tasks audited`)), scrolled(["", "Tasks", "pass@1 or rate", "95 % interval"], rows), told && h("p", {}, told));
}

function passesOf({ passes }, base) {
  if (!passes) return null;
  const rows = passes.rows.map((row) => h("tr", {}, h("td", {}, h("a.name", { href: `${base}/episode/${encodeURIComponent(`${row.sample}:${row.task}`)}` }, row.task), h("span.sub", {}, ` sample ${row.sample}`)), h("td", {}, row.flags.map((flag) => h("div", {}, flag)))));
  const more = passes.flagged - passes.rows.length;
  return h("section", {}, h("h2", {}, "Passes to look at ", h("span.sub", {}, `${number(passes.flagged)} of ${number(passes.looked_at)}`)), rows.length ? scrolled(["Episode", "Why"], rows) : h("p.muted", {}, "None has a flag."), more > 0 && h("p.muted", {}, `and ${number(more)} more`));
}

const scrolled = (names, rows) => h("div.scroll.narrow", { tabindex: 0, role: "group", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col", class: /^(Tasks|pass@1)/.test(name) ? "n" : "" }, name)))), h("tbody", {}, rows)));

function tableOf(rows) {
  return scrolled(["", "Tasks", "pass@1", "95 % interval"], rows.map(([name, row]) => h("tr", {}, h("td", {}, name), h("td.n", {}, number(row.n)), h("td.n", {}, percent(row["pass@1"])), h("td", {}, meterOf(row)))));
}

function meterOf(row) {
  if (row["pass@1"] === null || row["pass@1"] === undefined) return "–";
  const [low, high] = row.interval ?? [0, 0];
  return h("span.meter", { vars: { "--v": String(row["pass@1"]), "--l": String(low), "--h": String(high) }, title: intervalOf(row.interval) }, h("i"), row.interval && h("u"));
}

async function showTraining(page) {
  const run = await ask("overview", { run: page.run.id }, page.signal);
  const report = run.report?.families ?? {};
  const nested = run.evaluations;
  const names = Object.keys(report);
  const stages = STAGES.filter((stage) => names.some((name) => report[name][stage]));
  fill(
    page.main,
    names.length ? h("section", {}, h("h2", {}, "Report: pass@1 on held-out tasks"), h("div.scroll", { tabindex: 0, role: "group", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Family"), stages.map((stage) => h("th.n", { scope: "col" }, stage)))), h("tbody", {}, names.map((name) => h("tr", {}, h("td", {}, name), stages.map((stage) => cell(report[name][stage])))))))) : h("p.muted", {}, "The report is written at the end."),
    nested.length ? h("section", {}, h("h2", {}, "Every evaluation"), h("div.scroll.narrow", { tabindex: 0, role: "group", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Evaluation"), h("th.n", { scope: "col" }, "Tasks"), h("th.n", { scope: "col" }, "Samples"), h("th.n", { scope: "col" }, "pass@1"), h("th.wide-only", { scope: "col" }, ""))), h("tbody", {}, [...nested].sort((a, b) => place(a) - place(b) || a.name.localeCompare(b.name)).map((one) => h("tr", {}, h("td", {}, h("a", { href: `#/run/${one.id}` }, one.name.split("/evals/").at(-1))), h("td.n", {}, number(one.n)), h("td.n", {}, number(one.samples)), h("td.n", {}, percent(one["pass@1"])), h("td.wide-only", {}, meterOf(one)))))))) : null,
  );
}

const place = (one) => (STAGES.indexOf(one.name.split("/evals/").at(-1).split("/")[0]) + 99) % 99;

function cell(row) {
  if (!row) return h("td.n.muted", {}, "–");
  return h("td.n", {}, h("b", {}, percent(row["pass@1"])), row.interval && h("div.sub", {}, intervalOf(row.interval)), row.greedy !== undefined && row.greedy !== null && h("div.sub", {}, `greedy ${percent(row.greedy)}`));
}

async function chooseOther(page, box) {
  const { run } = page;
  const all = (await ask("runs", {}, page.signal)).runs;
  const trainings = await Promise.all(all.filter((one) => one.kind === "training").map((one) => ask("overview", { run: one.id }, page.signal)));
  const others = [...all.filter((one) => ["evaluation", "grading"].includes(one.kind)), ...trainings.flatMap((one) => one.evaluations)].filter((one) => one.id !== run.id);
  if (!others.length) return;
  const select = h("select", { "aria-label": "Another evaluation", onchange: () => choose(select.value) }, h("option", { value: "" }, "another evaluation …"), others.map((one) => h("option", { value: one.id }, one.name)));
  const found = h("div");
  fill(box, h("h2", {}, "Against"), h("div", {}, select), found);
  async function choose(id) {
    history.replaceState(null, "", `${page.base}/results${id ? `?against=${id}` : ""}`);
    fill(found, id ? await comparison(id, run.id, page.signal) : null);
  }
  if (page.query.against) {
    select.value = page.query.against;
    await choose(page.query.against);
  }
}

// `second` against `first`, task by task.
export async function comparison(first, second, signal) {
  const { shared, difference, flipped, more } = await ask("compare", { first, second }, signal);
  if (!difference) return h("p.muted", {}, "The two have no graded task in common.");
  const link = (id, task, value) => h("a", { href: `#/run/${id}/episodes?task=${encodeURIComponent(task)}` }, percent(value, 0));
  return h(
    "div",
    {},
    h("dl.facts", {}, fact("difference of pass@1", `${signed(100 * difference.mean, 1)} points`, `${signed(100 * difference.low, 1)} to ${signed(100 * difference.high, 1)}`), fact("tasks in common", number(shared)), fact("better", number(difference.num_better)), fact("worse", number(difference.num_worse)), fact("McNemar p", number(difference.p_value))),
    h("h2", {}, flipped.length ? `Tasks that changed` : "No task changed"),
    flipped.length ? h("div.scroll.narrow", { tabindex: 0, role: "group", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Task"), h("th.n", { scope: "col" }, "before"), h("th.n", { scope: "col" }, "after"), h("th", { scope: "col" }, ""))), h("tbody", {}, flipped.map((row) => h("tr", {}, h("td", {}, row.task), h("td.n", {}, link(first, row.task, row.before)), h("td.n", {}, link(second, row.task, row.after)), h("td", {}, row.after > row.before ? h("span.outcome.passed", {}, h("i.dot"), "better") : h("span.outcome.failed", {}, h("i.dot"), "worse"))))))) : null,
    more ? h("p.muted", {}, `and ${number(more)} more`) : null,
  );
}
