// Curves of one run or of several.

import { h, fill, number, segmented, styled } from "./dom.js";
import { ask } from "./api.js";
import { Chart, sorted, grouped } from "./charts.js";

const NONE_YET = "No metrics yet: they come with the first step.";
const AXES = [["step", "steps"], ["tokens", "tokens"], ["seconds", "time"]];

// `keys` says which metrics; `reasons` adds why episodes ended.
export async function showCurves(page, { keys, reasons = false, runs = null }) {
  const ids = runs ?? [page.run.id];
  const kept = Object.assign({ axis: "step", smooth: "0", stage: "", find: "" }, page.query);
  const asked = ids.map((id) => ask("metrics", { run: id }, page.signal));
  let [, ...found] = await Promise.all([styled("vendor/uplot/uPlot.min.css"), ...asked]);
  const stagesOf = () => [...new Set(found.flatMap((one) => one.stages.map((stage) => stage.stage)))];
  let stages = stagesOf();
  if (!stages.length) {
    fill(page.main, h("p.empty", {}, NONE_YET));
    const again = (event) => {
      if (!event.detail.metrics) return;
      page.live.removeEventListener("news", again);
      showCurves(page, { keys, reasons, runs }).catch(() => {});
    };
    return page.live?.addEventListener("news", again);
  }
  // Who has chosen no stage is taken along to the next one.
  let isChosen = stages.includes(kept.stage);
  const newest = () => ["rl", "distill"].find((name) => stages.includes(name)) ?? stages.at(-1);
  if (!isChosen) kept.stage = newest();

  const controls = h("div.bar"), box = h("div"), extra = h("div");
  let charts = [], shownKeys = "";
  const smoothing = h("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: kept.smooth, "aria-label": "Smoothing" });
  const smoothed = h("span.muted", {}, "");
  smoothing.addEventListener("input", () => {
    kept.smooth = smoothing.value;
    smoothed.textContent = Number(kept.smooth) ? Number(kept.smooth).toFixed(2) : "none";
    charts.forEach((chart) => chart.draw(kept));
  });
  smoothing.addEventListener("change", remember);
  const find = h("input", { type: "search", placeholder: "Find a metric", "aria-label": "Find a metric", value: kept.find, oninput: () => { kept.find = find.value; build(); } });
  find.addEventListener("change", remember);

  function remember() {
    const query = new URLSearchParams(Object.entries(kept).filter(([key, value]) => value && !(key === "stage" && !isChosen) && !(key === "axis" && value === "step") && !(key === "smooth" && value === "0")));
    history.replaceState(null, "", `${location.hash.split("?")[0]}${query.size ? `?${query}` : ""}`);
  }
  function choose(name, value) {
    kept[name] = value;
    isChosen ||= name === "stage";
    remember();
    drawControls();
    name === "stage" ? build() : charts.forEach((chart) => chart.draw(kept));
  }
  function drawControls() {
    smoothed.textContent = Number(kept.smooth) ? Number(kept.smooth).toFixed(2) : "none";
    fill(controls, stages.length > 1 && segmented("Stage", stages.map((one) => [one, one]), kept.stage, (value) => choose("stage", value)), segmented("Horizontal axis", AXES, kept.axis, (value) => choose("axis", value)), h("label", {}, "Smoothing ", smoothing, " ", smoothed), find);
  }

  const stageOf = (one) => one.stages.find((stage) => stage.stage === kept.stage) ?? { columns: {}, watched: [] };
  function sources() {
    return found.map((one, place) => ({ id: ids[place], name: one.name, ...stageOf(one) }));
  }

  function build() {
    const data = sources();
    const names = [...new Set(data.flatMap((one) => Object.keys(one.columns)))].filter((key) => key.includes("/") && keys(key));
    if (data.some((one) => one.watched.length) && keys("eval/")) names.push("held out/pass@1/rate");
    const wanted = kept.find.toLowerCase();
    const groups = grouped(names, { single: data.length === 1, engines: reasons });
    charts.forEach((chart) => chart.close());
    charts = [];
    fill(box);
    for (const group of groups) {
      const members = group.charts.filter((one) => !wanted || one.title.toLowerCase().includes(wanted) || one.keys.some((key) => key.toLowerCase().includes(wanted)));
      if (!members.length) continue;
      const grid = h("div.charts", { class: group.wide ? "wide" : "" });
      for (const one of members) {
        const chart = new Chart(one, data, kept);
        charts.push(chart);
        grid.append(chart.element);
      }
      box.append(h("details.group", { open: true }, h("summary", {}, group.title), grid));
    }
    if (!box.children.length) fill(box, h("p.empty", {}, wanted ? "No metric is called that." : NONE_YET));
    shownKeys = names.join();
  }

  fill(page.main, controls, extra, box);
  drawControls();
  build();
  async function fillReasons() {
    const facets = await ask("facets", { run: page.run.id }, page.signal);
    fill(extra, reasonsOf(facets, page.base));
    return facets.version;
  }
  document.addEventListener("theme", () => charts.forEach((chart) => chart.draw(kept)), { signal: page.signal });
  let resizing = 0;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() => charts.forEach((chart) => chart.draw(kept)), 120); }, { signal: page.signal });
  page.signal.addEventListener("abort", () => charts.forEach((chart) => chart.close()));

  async function renew() {
    found = await Promise.all(ids.map((id) => ask("metrics", { run: id }, page.signal)));
    const before = stages.join();
    stages = stagesOf();
    if (!isChosen) kept.stage = newest();
    if (before !== stages.join()) drawControls();
    const data = sources();
    const names = [...new Set(data.flatMap((one) => Object.keys(one.columns)))].filter((key) => key.includes("/") && keys(key));
    if (before !== stages.join() || names.some((key) => !shownKeys.includes(key))) build();
    else charts.forEach((chart) => chart.take(data, kept));
  }
  let told = reasons ? await fillReasons() : null;
  page.live?.addEventListener("news", ({ detail: now }) => {
    if (found[ids.indexOf(now.run)]?.version !== now.metrics) renew().catch(() => {});
    if (reasons && told !== now.episodes) fillReasons().then((version) => (told = version)).catch(() => {});
  });
}

function reasonsOf({ endings, total }, base) {
  const rows = Object.entries(endings);
  if (!rows.length) return h("div");
  const failed = (name) => name.endsWith("failure");
  return h("section", {}, h("h2", {}, "How episodes ended"), h("table.narrow", {}, h("tbody", {}, rows.map(([name, count]) => h("tr", {}, h("td", {}, h("a", { href: `${base}/episodes?ending=${encodeURIComponent(name)}` }, name.replaceAll("_", " "))), h("td.n", {}, number(count)), h("td.n", {}, `${((100 * count) / total).toFixed(1)} %`), h("td", {}, h("span.meter", { vars: { "--v": String(count / total) } }, h("i"))), h("td.muted.wide-only", {}, failed(name) ? "infrastructure: counts in no figure" : ""))))));
}
