// One chart, and which metrics share one.

import uPlot from "./vendor/uplot/uPlot.esm.js";
import { h, fill, number } from "./dom.js";

const POLICY = /loss|entropy|kl|clipfrac|ratio|mismatch|advantage|correction|effective|value|return|explained/;
const ENGINES = [
  ["Throughput", /tokens_per_second|tflops|mfu|memory/],
  ["Who waits", /idle|seconds\//],
  ["Lag and groups", /lag|groups|dropped|stale/],
  ["Failures", /failures|retries|cut_at_deadline|late/],
  ["Event loop", /loop/],
];
const FIRST = ["reward", "pass@1, episodes", "pass@1, held"];

// Groups of charts: rewards first, then the rooms. With one run the families of a quantity share a chart.
export function grouped(names, { single, engines = false }) {
  const charts = new Map();
  const put = (group, title, key, label) => {
    const place = `${group}\n${title}`;
    if (!charts.has(place)) charts.set(place, { group, title, keys: [], labels: [] });
    charts.get(place).keys.push(key);
    charts.get(place).labels.push(label);
  };
  for (const key of names) {
    const family = key.match(/^(rollout|eval)\/(reward|passed)(?:_(.+))?\/(mean|rate)$/);
    const part = key.match(/^rollout\/part_([^.]+)\.(.+)\/mean$/);
    const plain = `${key.split("/").slice(0, -1).join("/")}`;
    if (key === "held out/pass@1/rate") put("Reward and pass@1", "pass@1, held out", key, "all");
    else if (key === "eval/best/rate") put("Reward and pass@1", "pass@1, held out", key, "best");
    else if (family) {
      const told = family[2] === "reward" ? "reward" : family[1] === "eval" ? "pass@1, held out" : "pass@1, episodes";
      const name = family[3] ?? "all";
      if (family[1] === "eval" && name === "all") continue; // the evaluations themselves are drawn
      put("Reward and pass@1", single ? told : `${told}${name === "all" ? "" : `, ${name}`}`, key, name);
    } else if (part) put("Parts of the reward", single ? part[1] : `${part[1]}: ${part[2]}`, key, part[2]);
    else {
      const [room, quantity] = key.split("/");
      const stat = key.split("/").at(-1);
      const title = `${quantity.replaceAll("_", " ")}${["mean", "count", "rate", "share", "last", "total"].includes(stat) ? "" : ` ${stat.replaceAll("_", " ")}`}`;
      if (engines) {
        put(ENGINES.find(([, own]) => own.test(key))?.[0] ?? "Other", `${{ rollout: "sampling", trainer: "training" }[room] ?? room}: ${title}`, key, plain);
        continue;
      }
      const group = room === "trainer" && POLICY.test(quantity) ? "Policy" : { rollout: "Episodes", trainer: "Trainer", eval: "Evaluation" }[room] ?? room;
      put(group, title, key, plain);
    }
  }
  const order = [...ENGINES.map(([title]) => title), "Reward and pass@1", "Parts of the reward", "Policy", "Episodes", "Trainer", "Evaluation"];
  const groups = new Map();
  for (const chart of charts.values()) {
    if (!groups.has(chart.group)) groups.set(chart.group, []);
    groups.get(chart.group).push(chart);
  }
  const rank = (title) => (order.includes(title) ? order.indexOf(title) : order.length);
  const inner = (chart) => FIRST.findIndex((word) => chart.title.startsWith(word));
  return [...groups.entries()]
    .sort(([a], [b]) => rank(a) - rank(b) || a.localeCompare(b))
    .map(([title, members]) => ({ title, wide: title === "Reward and pass@1", charts: title === "Reward and pass@1" ? members.sort((a, b) => inner(a) - inner(b)) : members.sort((a, b) => a.title.localeCompare(b.title)) }));
}

function smoothedOf(values, weight) {
  if (!weight) return values;
  let sum = 0, mass = 0;
  return values.map((value) => {
    if (value === null || value === undefined) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

const WHOLE = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((one) => one * 10 ** power)).flat();
const SHARE = /\/(reward|passed|part_)|\/(rate|share)$|pass@1/;

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const seen = new IntersectionObserver((entries) => entries.forEach((entry) => entry.target.chart?.seen(entry.isIntersecting)), { rootMargin: "300px" });

export class Chart {
  constructor(about, data, kept) {
    this.about = about;
    this.data = data;
    this.kept = kept;
    this.visible = false;
    this.stale = true;
    this.legend = h("div.legend");
    this.plot = h("div.plot");
    this.element = h("section.chart", { "aria-label": about.title }, h("header", {}, h("h3", { title: about.keys.join("\n") }, about.title)), this.legend, this.plot);
    this.element.chart = this;
    seen.observe(this.element);
  }

  seen(visible) {
    this.visible = visible;
    if (visible && this.stale) this.draw(this.kept);
  }

  take(data, kept) {
    this.data = data;
    this.draw(kept);
  }

  // A line for each run and key: points of those rows that have the value.
  lines() {
    const { keys, labels } = this.about;
    const several = this.data.length > 1;
    const made = [];
    this.data.forEach((run, place) => {
      keys.forEach((key, number) => {
        const watched = key === "held out/pass@1/rate";
        const rows = watched ? run.watched : null;
        const values = watched ? rows.map((row) => row["pass@1"]) : run.columns[key];
        if (!values || values.every((value) => value === null || value === undefined)) return;
        const at = watched ? this.along(run, rows.map((row) => row.step)) : run.columns[this.kept.axis === "seconds" ? "seconds" : this.kept.axis];
        const hue = several ? 1 + (place % 8) : labels[number] === "all" || keys.length === 1 ? (keys.length === 1 ? 1 : 0) : 1 + (number % 8);
        made.push({ label: several ? (keys.length > 1 ? `${run.name} ${labels[number]}` : run.name) : labels[number], single: keys.length === 1 && !several && this.about.group !== "Parts of the reward", at, values, hue, wide: labels[number] === "all", dots: watched || key.startsWith("eval/") });
      });
    });
    return made;
  }

  along(run, steps) {
    if (this.kept.axis === "step") return steps;
    const column = run.columns[this.kept.axis] ?? [], known = run.columns.step ?? [];
    return steps.map((step) => (step === 0 ? 0 : column[known.indexOf(step)] ?? null));
  }

  draw(kept) {
    this.kept = kept;
    this.stale = true;
    if (!this.visible) return;
    this.stale = false;
    const lines = this.lines();
    const weight = Number(kept.smooth);
    const all = [...new Set(lines.flatMap((line) => line.at.filter((value) => value !== null && value !== undefined)))].sort((a, b) => a - b);
    const place = new Map(all.map((value, index) => [value, index]));
    const spread = (line, values) => {
      const column = new Array(all.length).fill(undefined);
      values.forEach((value, index) => {
        const at = place.get(line.at[index]);
        if (at !== undefined && value !== null && value !== undefined) column[at] = value;
      });
      return column;
    };
    const columns = [all], series = [{}];
    this.shown = [];
    for (const line of lines) {
      const stroke = color(`--s${line.hue}`);
      const points = { show: line.dots || all.length < 3, size: 5, fill: stroke };
      if (weight) {
        columns.push(spread(line, line.values));
        series.push({ stroke: `${stroke}44`, width: 1, points: { show: false }, spanGaps: true });
      }
      columns.push(spread(line, smoothedOf(line.values, weight)));
      series.push({ stroke, width: line.wide ? 2.2 : 1.5, points, spanGaps: true });
      this.shown.push({ ...line, column: columns.length - 1, stroke });
    }
    this.columns = columns;
    this.close();
    if (!lines.length) {
      fill(this.legend, h("span", {}, "no value yet"));
      return;
    }
    const axis = { stroke: color("--muted"), font: `11px ${color("--sans") || "sans-serif"}`, grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const options = {
      width: Math.max(200, this.plot.clientWidth), height: this.plot.clientHeight, series,
      padding: [8, 10, 0, 0],
      scales: { x: { time: false }, y: { range: (_, low, high) => rangeOf(this.about.keys[0], low, high) } },
      axes: [{ ...axis, size: 24, incrs: this.kept.axis === "seconds" ? undefined : WHOLE, gap: 4, values: (_, ticks) => ticks.map((tick) => this.tick(tick)), grid: { show: false } }, { ...axis, size: 50, gap: 4, values: (_, ticks) => ticks.map((tick) => short(tick)) }],
      cursor: { sync: { key: "curves", setSeries: false }, y: false, points: { size: 6 }, drag: { x: true, y: false } },
      legend: { show: false },
      hooks: { setCursor: [(plot) => this.tell(plot.cursor.idx)] },
    };
    this.uplot = new uPlot(options, columns, this.plot);
    this.tell(null);
  }

  tick(value) {
    if (this.kept.axis !== "seconds") return short(value);
    return value >= 7200 ? `${(value / 3600).toFixed(1)} h` : value >= 120 ? `${Math.round(value / 60)} min` : `${Math.round(value)} s`;
  }

  tell(index) {
    const told = (line, value) => (SHARE.test(this.about.keys[0]) && value !== undefined && Math.abs(value) <= 1 ? value.toFixed(3) : number(value));
    const items = this.shown.map((line) => {
      const column = this.columns[line.column];
      let at = index ?? column.length - 1;
      while (at > 0 && column[at] === undefined) at -= 1;
      return h("span", { vars: { "--c": line.stroke } }, this.shown.length > 1 || !line.single ? [h("i"), line.label] : null, h("b", {}, told(line, column[at])));
    });
    const where = index === null || index === undefined ? null : h("span", {}, `${this.kept.axis === "step" ? "step " : ""}${this.tick(this.columns[0][index])}`);
    fill(this.legend, items, where);
  }

  close() {
    this.uplot?.destroy();
    this.uplot = null;
  }
}

function rangeOf(key, low, high) {
  if (low === null || high === null) return [0, 1];
  if (SHARE.test(key) && low >= 0 && high <= 1) return [0, 1.02];
  if (low === high) return low >= 0 ? [0, high * 1.25 || 1] : [low * 1.25, 0];
  const room = (high - low) * 0.06;
  return [low >= 0 && low < (high - low) ? 0 : low - room, high + room];
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${+(value / 1e9).toFixed(2)}G`;
  if (size >= 1e6) return `${+(value / 1e6).toFixed(2)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toFixed(1)}k`;
  if (size !== 0 && size < 1e-3) return value.toExponential(0).replace("e-", "e−");
  return String(+value.toPrecision(4));
}

export const sorted = (names) => [...names].sort();
