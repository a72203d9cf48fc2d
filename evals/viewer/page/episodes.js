// The table of episodes: filters in the address, any number of rows (those on screen are there), or groups.

import { h, fill, number, signed, seconds, outcome, segmented, verdictOf, NONE } from "./dom.js";
import { ask } from "./api.js";
import { isTyping } from "./keys.js";

const PAGE = 100, ROW = 33, AHEAD = 12;
const COLUMNS = [
  ["step", "Step", "n", "56px", (row) => number(row.step)],
  ["task", "Task", "", null, (row, base) => h("a", { href: `${base}/episode/${encodeURIComponent(row.key)}`, title: row.task }, row.task)],
  ["family", "Family", "wide-only", "86px", (row) => row.family],
  ["passed", "Outcome", "", "128px", (row) => outcome(row.passed, row.passed === null ? "no verdict" : undefined)],
  ["ending", "Ending", "wide-only", "120px", (row) => row.ending.replaceAll("_", " ")],
  ["reward", "Reward", "n", "72px", (row) => number(row.reward)],
  ["advantage", "Advantage", "n wide-only", "88px", (row) => signed(row.advantage)],
  ["turns", "Turns", "n wide-only", "60px", (row) => number(row.turns)],
  ["sampled", "Tokens", "n wide-only", "76px", (row) => number(row.sampled)],
  ["seconds", "Seconds", "n wide-only", "78px", (row) => (row.seconds === null ? NONE : row.seconds.toFixed(1))],
  ["detail", "What decided", "wide-only muted", "26%", (row) => h("span", { title: row.detail }, row.detail)],
];

export async function showEpisodes(page) {
  const { run, base } = page;
  const kept = { ...page.query };
  let facets = { stages: {}, families: {}, endings: {}, passed: {}, steps: [null, null] };
  const filters = h("form.filters", { role: "search", onsubmit: (event) => event.preventDefault() });
  const told = h("div.bar"), box = h("div");
  fill(page.main, filters, told, box);
  const view = kept.view === "groups" ? groupsView(page, kept, box, tell) : rowsView(page, kept, box, tell);

  function set(name, value) {
    if (value === "" || value === undefined) delete kept[name];
    else kept[name] = value;
    remember();
    drawFilters();
    view.reset();
  }
  function remember() {
    const query = new URLSearchParams(kept);
    history.replaceState(null, "", `${base}/episodes${query.size ? `?${query}` : ""}`);
  }
  function choice(name, label, values, all) {
    const select = h("select", { "aria-label": label, onchange: () => set(name, select.value) }, h("option", { value: "" }, all), Object.entries(values).map(([value, text]) => h("option", { value }, text)));
    select.value = kept[name] ?? "";
    return select;
  }
  const counted = (counts) => Object.fromEntries(Object.entries(counts).map(([name, count]) => [name, `${name.replaceAll("_", " ")}  ${number(count)}`]));
  let typing = 0;
  const text = h("input", { type: "search", placeholder: "Task, tool, output … any text", "aria-label": "Find text in episodes", value: kept.text ?? "", oninput: () => { clearTimeout(typing); typing = setTimeout(() => set("text", text.value), 250); } });
  const range = (name, label, step) => {
    const field = (end, hint) => h("input", { type: "number", step, placeholder: hint, "aria-label": `${label}, ${hint}`, value: kept[`${name}_${end}`] ?? "", onchange: (event) => set(`${name}_${end}`, event.target.value) });
    return h("span.range", {}, label, field("min", "from"), field("max", "to"));
  };
  let more = Object.keys(kept).some((key) => /_(min|max)$|^tokens$/.test(key));
  function drawFilters() {
    const typingIn = document.activeElement === text;
    fill(
      filters,
      text,
      Object.keys(facets.stages).length > 1 && choice("stage", "Stage", counted(facets.stages), "every stage"),
      Object.keys(facets.families).length > 1 && choice("family", "Family", counted(facets.families), "every family"),
      choice("passed", "Outcome", { yes: `passed  ${number(facets.passed.yes)}`, no: `not passed  ${number(facets.passed.no)}`, none: `no verdict  ${number(facets.passed.none)}` }, "every outcome"),
      choice("ending", "Ending", counted(facets.endings), "every ending"),
      more && [facets.steps[1] !== null && range("step", "steps", 1), range("reward", "reward", 0.1), range("sampled", "tokens", 1), facets.steps[1] !== null && choice("tokens", "Tokens", { yes: "tokens kept" }, "with or without tokens")],
      h("button.quiet", { type: "button", "aria-expanded": String(more), onclick: () => { more = !more; drawFilters(); } }, more ? "less" : "more"),
      Object.keys(kept).some((key) => !["view", "sort", "down"].includes(key)) && h("button.quiet", { type: "button", onclick: () => { for (const key of Object.keys(kept)) if (!["view", "sort", "down"].includes(key)) delete kept[key]; text.value = ""; remember(); drawFilters(); view.reset(); } }, "clear"),
    );
    if (typingIn) text.focus();
  }
  function tell(total, what, more) {
    fill(told, segmented("Rows", [["", "Episodes"], ["groups", "Groups"]], kept.view ?? "", (value) => { value ? (kept.view = value) : delete kept.view; remember(); dispatchEvent(new HashChangeEvent("hashchange")); }), h("span.muted", {}, total === null ? "…" : `${number(total)} ${what}`), more);
  }
  drawFilters();
  tell(null);
  page.live.addEventListener("news", ({ detail: now }) => now.episodes !== view.version() && view.renew().catch(() => {}));
  await view.reset();
  // After the rows: what there is to filter by is counted over all of them.
  ask("facets", { run: run.id }, page.signal).then((found) => { facets = found; drawFilters(); }).catch(() => {});
}

function rowsView(page, kept, box, tell) {
  const { run, base, signal } = page;
  let total = 0, pages = new Map(), asked = new Set(), generation = 0, version = null, chosen = -1, newest = null, drawn = "";
  const head = h("tr"), before = h("tr.space", { "aria-hidden": "true" }, h("td")), after = h("tr.space", { "aria-hidden": "true" }, h("td")), body = h("tbody");
  const shown = COLUMNS.filter(([key]) => (run.kind === "training" ? true : !["step", "advantage"].includes(key)));
  const table = h("table.episodes", {}, h("thead", {}, head), body);
  fill(box, table);

  function drawHead() {
    const sort = kept.sort ?? "", down = kept.down !== "0";
    fill(head, shown.map(([key, text, kind, width]) => h("th", { scope: "col", class: kind.replace("muted", ""), vars: width ? { width } : {}, "aria-sort": sort === key ? (down ? "descending" : "ascending") : null }, key === "detail" ? text : h("button", { type: "button", onclick: () => order(key) }, text))));
  }
  function order(key) {
    if (kept.sort !== key) { kept.sort = key; delete kept.down; }
    else if (kept.down !== "0") kept.down = "0";
    else { delete kept.sort; delete kept.down; }
    const query = new URLSearchParams(kept);
    history.replaceState(null, "", `${base}/episodes${query.size ? `?${query}` : ""}`);
    drawHead();
    reset();
  }

  async function load(number_) {
    if (asked.has(number_)) return;
    asked.add(number_);
    const mine = generation;
    try {
      const found = await ask("episodes", { run: run.id, ...kept, view: undefined, offset: number_ * PAGE, limit: PAGE }, signal);
      if (mine !== generation) return;
      pages.set(number_, found.rows);
      total = found.total;
      version ??= found.version;
      tell(total, total === 1 ? "episode" : "episodes", found.searched_all === false ? h("span.muted", {}, "The search stopped after 2 s: the newest that it found.") : found.behind ? h("span.muted", {}, "still reading …") : null);
      draw();
    } catch (error) {
      if (signal.aborted) return;
      asked.delete(number_);
      fill(body, h("tr", {}, h("td.empty", { colspan: matchMedia("(max-width: 720px)").matches ? 3 : shown.length }, error.message)));
    }
  }

  const rowAt = (place) => pages.get(Math.floor(place / PAGE))?.[place % PAGE];

  function draw() {
    const from = table.getBoundingClientRect().top + head.offsetHeight;
    const first = Math.max(0, Math.min(total - 1, Math.floor(-from / ROW) - AHEAD));
    const last = Math.min(total, Math.ceil((innerHeight - from) / ROW) + AHEAD);
    for (let number_ = Math.floor(first / PAGE); number_ <= Math.floor(Math.max(first, last - 1) / PAGE); number_++) load(number_);
    if (!total) {
      if (pages.size) fill(body, h("tr", {}, h("td.empty", { colspan: matchMedia("(max-width: 720px)").matches ? 3 : shown.length }, "No episode is like that.")));
      drawn = "";
      return;
    }
    const state = `${generation} ${first} ${last} ${total} ${chosen} ${[...pages.keys()]} ${newest}`;
    if (state === drawn) return;
    drawn = state;
    before.firstChild.style.height = `${first * ROW}px`;
    after.firstChild.style.height = `${(total - last) * ROW}px`;
    const rows = [];
    for (let place = first; place < last; place++) {
      const row = rowAt(place);
      const fresh = row && newest !== null && row.id > newest;
      rows.push(h("tr", { class: `${place === chosen ? "chosen" : ""} ${fresh ? "fresh" : ""}`, "aria-rowindex": place + 2, "data-place": place }, shown.map(([, , kind, , made]) => h("td", { class: kind }, row ? made(row, base) : ""))));
    }
    const focused = document.activeElement?.closest?.("tr")?.dataset?.place;
    fill(body, before, rows, after);
    if (rows.length) performance.mark("rows");
    table.setAttribute("aria-rowcount", total + 1);
    if (focused !== undefined) body.querySelector(`tr[data-place="${focused}"] a`)?.focus({ preventScroll: true });
  }

  async function reset() {
    generation += 1;
    pages = new Map();
    asked = new Set();
    total = 0;
    version = null;
    chosen = -1;
    newest = null;
    drawn = "";
    fill(body);
    await load(0);
  }

  async function renew() {
    const known = pages.get(0)?.reduce((most, row) => Math.max(most, row.id), 0) ?? 0;
    const mine = ++generation;
    const wanted = [...new Set([0, Math.floor(Math.max(0, -table.getBoundingClientRect().top) / ROW / PAGE)])];
    const found = await Promise.all(wanted.map((number_) => ask("episodes", { run: run.id, ...kept, view: undefined, offset: number_ * PAGE, limit: PAGE }, signal)));
    if (mine !== generation) return;
    pages = new Map(wanted.map((number_, place) => [number_, found[place].rows]));
    asked = new Set(wanted);
    total = found[0].total;
    version = found[0].version;
    newest = known;
    tell(total, total === 1 ? "episode" : "episodes", found[0].behind ? h("span.muted", {}, "still reading …") : null);
    draw();
  }

  body.addEventListener("click", (event) => {
    if (event.target.closest("a") || String(getSelection())) return;
    event.target.closest("tr")?.querySelector("a")?.click();
  });
  let waiting = false;
  const later = () => {
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(() => { waiting = false; if (!signal.aborted) draw(); });
    }
  };
  addEventListener("scroll", later, { signal, passive: true });
  addEventListener("resize", later, { signal });
  document.addEventListener("keydown", (event) => {
    if (isTyping(event) || !total) return;
    if (event.key === "j" || event.key === "k") {
      chosen = Math.max(0, Math.min(total - 1, chosen + (event.key === "j" ? 1 : -1)));
      draw();
      const row = body.querySelector(`tr[data-place="${chosen}"]`);
      row?.scrollIntoView({ block: "nearest" });
      row?.querySelector("a")?.focus({ preventScroll: true });
    }
  }, { signal });
  drawHead();
  return { reset, renew, version: () => version };
}

function groupsView(page, kept, box, tell) {
  const { run, base, signal } = page;
  let rows = [], total = 0, version = null;
  const body = h("tbody"), more = h("button", { type: "button", hidden: true, onclick: () => load(rows.length) }, "More");
  fill(box, h("div.scroll", { tabindex: 0, role: "group", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, h("th.n", { scope: "col" }, "Step"), h("th", { scope: "col" }, "Task"), h("th.wide-only", { scope: "col" }, "Family"), h("th", { scope: "col" }, "Samples, by advantage"), h("th.n", { scope: "col" }, "Passed"), h("th.n", { scope: "col" }, "Reward"), h("th.n.wide-only", { scope: "col" }, "Lowest to highest"))), body)), more);

  async function load(offset) {
    const found = await ask("groups", { run: run.id, ...kept, view: undefined, sort: undefined, down: undefined, offset, limit: 50 }, signal);
    rows = offset ? [...rows, ...found.rows] : found.rows;
    total = found.total;
    if (!offset) version = found.version;
    tell(total, total === 1 ? "group" : "groups");
    more.hidden = rows.length >= total;
    fill(body, rows.map(row));
    if (!rows.length) fill(body, h("tr", {}, h("td.empty", { colspan: 7 }, "No group is like that.")));
  }
  function row(group) {
    const members = [...group.members].sort((a, b) => (b[3] ?? -9) - (a[3] ?? -9) || (b[1] ?? -9) - (a[1] ?? -9));
    const address = `${base}/group?${new URLSearchParams({ stage: group.stage, step: group.step ?? "", grp: group.grp })}`;
    return h("tr", {}, h("td.n", {}, number(group.step)), h("td", {}, h("a.name", { href: address }, group.task)), h("td.wide-only", {}, group.family), h("td", {}, membersOf(members, base)), h("td.n", {}, `${group.passed ?? 0} of ${group.samples}`), h("td.n", {}, number(group.reward)), h("td.n.wide-only", {}, group.low === group.high ? h("span.muted", {}, "all the same") : `${number(group.low)} to ${number(group.high)}`));
  }
  return { reset: () => load(0), renew: async () => rows.length <= 50 && load(0), version: () => version };
}

export function membersOf(members, base, current) {
  return h("span.members", {}, members.map(([key, reward, passed, advantage, ending]) => h("a", { href: `${base}/episode/${encodeURIComponent(key)}`, class: verdictOf(passed), "aria-current": key === current ? "true" : null, "aria-label": `${verdictOf(passed)}, reward ${number(reward)}`, title: `reward ${number(reward)}, advantage ${signed(advantage)}, ${ending.replaceAll("_", " ")}` }, passed === null ? "·" : reward === 1 ? "1" : reward === 0 ? "0" : reward === null ? "·" : String(reward.toFixed(1)).replace(/^0/, ""))));
}
