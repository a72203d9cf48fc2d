// One run: its head, and the tabs under it.

import { h, fill, number, percent, seconds, ago, command } from "./dom.js";
import { ask, follow } from "./api.js";
import { stateOf } from "./runs.js";
import { showEpisodes } from "./episodes.js";
import { isTyping } from "./keys.js";

const ENGINES = /seconds\/|tokens_per_second|tflops|mfu|memory|lag|failures|retries|cut_at_deadline|late_groups|dropped|loop|idle|stale|groups_.*total/;

export async function showRun(page) {
  const [, id, tab = "", ...rest] = page.path;
  const run = await ask("run", { run: id }, page.signal);
  const hasCurves = run.kind === "training";
  const tabs = [
    hasCurves && ["curves", "Curves"],
    ["episodes", "Episodes"],
    ["results", run.kind === "training" ? "Evaluations" : "Results"],
    hasCurves && ["engines", "Engines"],
    ["about", "Settings"],
  ].filter(Boolean);
  const chosen = tab || (hasCurves ? "curves" : run.kind === "episodes" ? "episodes" : "results");
  const base = `#/run/${id}`;
  const inner = { ...page, run, base, rest, live: new EventTarget() };

  if (chosen === "episode") {
    page.crumbs([[run.name, base], ["episodes", `${base}/episodes`], [rest.join("/")]]);
    return (await import("./episode.js")).showEpisode(inner);
  }
  if (chosen === "group") {
    page.crumbs([[run.name, base], ["episodes", `${base}/episodes`], ["group"]]);
    return (await import("./group.js")).showGroup(inner);
  }
  page.crumbs([[run.name]]);
  const state = h("span"), counts = h("span.count"), sign = h("span.muted");
  const box = h("div");
  fill(
    page.main,
    h("div.head", {}, h("h1", {}, run.name), state, sign),
    h("div.muted", {}, [run.kind, run.recipe, run.of].filter(Boolean).join(" · ")),
    h("nav.tabs", { "aria-label": "Parts of the run" }, tabs.map(([key, text]) => h("a", { href: `${base}/${key}`, "aria-current": key === chosen ? "page" : null }, text, key === "episodes" && counts))),
    box,
  );
  document.addEventListener("keydown", (event) => {
    const place = Number(event.key) - 1;
    if (!isTyping(event) && tabs[place]) location.hash = `${base}/${tabs[place][0]}`;
  }, { signal: page.signal });
  fill(state, stateOf(run));
  sign.textContent = ago(run.sign);
  await showPart(chosen, { ...inner, main: box });
  if (page.signal.aborted) return;
  follow(id, page.signal, (now) => {
    fill(state, stateOf(now));
    sign.textContent = ago(now.sign);
    counts.textContent = number(now.total);
    inner.live.dispatchEvent(new CustomEvent("news", { detail: { ...now, run: id } }));
  });
}

async function showPart(name, page) {
  if (name === "curves" || name === "engines") {
    const { showCurves } = await import("./curves.js"); // with the chart library
    if (page.signal.aborted) return;
    return showCurves(page, name === "curves" ? { keys: () => true } : { keys: (key) => ENGINES.test(key), reasons: true });
  }
  if (name === "episodes") return showEpisodes(page);
  if (name === "results") return (await import("./results.js")).showResults(page);
  if (name === "about") return showSettings(page);
  throw new Error(`a run has no part ${name}`);
}

async function showSettings(page) {
  const run = { ...page.run, ...(await ask("overview", { run: page.run.id }, page.signal)) };
  fill(
    page.main,
    h("h2", {}, "Folder"),
    command(run.path),
    Object.entries(run.commands ?? {}).map(([told, text]) => [h("h2", {}, told[0].toUpperCase() + told.slice(1)), command(text)]),
    h("h2", {}, run.kind === "training" ? "Recipe" : "Settings"),
    run.config ? h("pre.json", { tabindex: 0 }, JSON.stringify(run.config, null, 2)) : h("p.muted", {}, "Nothing was written of them."),
  );
}
