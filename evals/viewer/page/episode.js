// One episode: conversation, patch, tests and tokens; beside them its score, times and group.

import { h, fill, number, signed, seconds, outcome, command, ago, styled } from "./dom.js";
import { ask } from "./api.js";
import { conversation } from "./conversation.js";
import { patchOf } from "./diff.js";
import { showTokens } from "./tokens.js";
import { membersOf } from "./episodes.js";
import { isTyping } from "./keys.js";

const TIMES = [["policy", "--time1"], ["environment", "--time2"], ["grading", "--time3"]];

export async function showEpisode(page) {
  const { run, base, rest, query, signal } = page;
  const key = rest.join("/");
  const [episode] = await Promise.all([ask("episode", { run: run.id, key }, signal), styled("reading.css")]);
  const { patch, tests } = episode.evidence ?? {};
  const tabs = [
    ["conversation", "Conversation", episode.messages?.length],
    patch !== undefined && ["patch", "Patch", null],
    tests && ["tests", "Tests", Object.keys(tests).length],
    ["tokens", "Tokens", episode.sampled],
  ].filter(Boolean);
  const chosen = tabs.some(([name]) => name === query.tab) ? query.tab : "conversation";
  const address = (name) => `${base}/episode/${encodeURIComponent(key)}${name === "conversation" ? "" : `?tab=${name}`}`;
  const place = [episode.stage, episode.step !== null && `step ${episode.step}`, `sample ${episode.sample}`, episode.family, episode.label].filter(Boolean).join(" · ");
  const move = (to, text, symbol) => h("a", { href: to ? `${base}/episode/${encodeURIComponent(to)}${query.tab ? `?tab=${query.tab}` : ""}` : null, "aria-label": text, title: text, class: to ? "" : "muted", role: to ? null : "link", "aria-disabled": to ? null : "true" }, symbol);
  const body = h("div");
  fill(
    page.main,
    h("div.head", {}, h("h1", {}, episode.task), outcome(episode.passed), h("span.grow"), move(episode.older, "Older episode", "← older"), move(episode.newer, "Newer episode", "newer →")),
    h("div.muted", {}, place, ` · reward ${number(episode.reward)}`, episode.advantage !== null && ` · advantage ${signed(episode.advantage)}`, ` · ${episode.ending.replaceAll("_", " ")}`),
    h("nav.tabs", { "aria-label": "Parts of the episode" }, tabs.map(([name, text, count]) => h("a", { href: address(name), "aria-current": name === chosen ? "page" : null }, text, count !== null && count !== undefined && h("span.count", {}, number(count))))),
    h("div.reading", {}, body, asideOf(episode, base)),
  );
  document.addEventListener("keydown", (event) => {
    if (isTyping(event)) return;
    const within = event.target.closest(".tokens");
    const go = (to) => to && (location.hash = `${base.slice(1)}/episode/${encodeURIComponent(to)}${query.tab ? `?tab=${query.tab}` : ""}`);
    const group = episode.group.map((row) => row.key);
    const at = group.indexOf(episode.key);
    if (event.key === "ArrowLeft" && !within) go(episode.older);
    else if (event.key === "ArrowRight" && !within) go(episode.newer);
    else if (event.key === "[") go(group[at - 1]);
    else if (event.key === "]") go(group[at + 1]);
    else if (event.key === "e") {
      const folds = [...body.querySelectorAll("details")];
      const open = folds.some((one) => !one.open);
      folds.forEach((one) => (one.open = open));
    } else if (tabs[Number(event.key) - 1]) location.hash = address(tabs[Number(event.key) - 1][0]).slice(1);
  }, { signal });

  if (chosen === "patch") fill(body, patch ? patchOf(patch) : h("p.muted", {}, "The patch is empty."));
  else if (chosen === "tests") fill(body, testsOf(tests));
  else if (chosen === "tokens") await showTokens({ ...page, main: body, episode });
  else if (episode.branches) branched(page, episode, body, key);
  else fill(body, episode.messages ? conversation(episode.messages) : h("p.muted", {}, "The conversation was not kept", run.kind === "training" ? ": the recipe's [record] leaves it out." : ": verigym eval keeps it with --save-trajectories."));
}

// A conversation with several branches: one at a time, what it shares with the branch it leaves told beside its name.
function branched(page, episode, body, key) {
  const nodes = episode.branches;
  const inner = new Set(nodes.map((node) => node.parent));
  const leaves = nodes.map((_, place) => place).filter((place) => !inner.has(place));
  const pathTo = (place) => { const path = []; while (place >= 0) { path.unshift(place); place = nodes[place].parent; } return path; };
  const paths = leaves.map(pathTo);
  const messagesOf = (path) => path.flatMap((place) => nodes[place].messages);
  let at = Math.min(Number(page.query.branch) || 0, leaves.length - 1);
  if (page.query.branch === undefined) at = leaves.length - 1;
  const list = h("div"), talk = h("div");
  fill(body, list, talk);
  const parentOf = (number) => {
    let best = [null, 0];
    for (let other = 0; other < number; other++) {
      const shared = paths[number].filter((place, index) => paths[other][index] === place).length;
      if (shared > best[1]) best = [other, shared];
    }
    return best;
  };
  const parents = paths.map((_, number) => parentOf(number));
  const below = (parent) => {
    const own = paths.map((_, number) => number).filter((number) => parents[number][0] === parent);
    return own.length ? h("ul", { class: parent === null ? "tree" : "" }, own.map((number) => h("li", {}, h("button", { type: "button", "aria-pressed": String(number === at), onclick: () => { at = number; history.replaceState(null, "", `${page.base}/episode/${encodeURIComponent(key)}?branch=${at}`); draw(); } }, `branch ${number + 1}`), h("span.muted", {}, parent === null ? `${messagesOf(paths[number]).length} messages` : `leaves after ${messagesOf(paths[number].slice(0, parents[number][1])).length} messages, ${messagesOf(paths[number].slice(parents[number][1])).length} of its own`), below(number)))) : null;
  };
  function draw() {
    fill(list, below(null));
    fill(talk, conversation(messagesOf(paths[at])));
  }
  draw();
}

function testsOf(tests) {
  const order = (name) => (["passed", "xfailed"].includes(name) ? 1 : 0);
  const rows = Object.entries(tests).sort(([a, x], [b, y]) => order(x) - order(y) || a.localeCompare(b));
  return h("table.tests", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Test"), h("th", { scope: "col" }, "Outcome"))), h("tbody", {}, rows.map(([name, status]) => h("tr", {}, h("td", {}, name), h("td", { class: /^[a-z]+$/.test(status) ? status : "" }, status)))));
}

function asideOf(episode, base) {
  const parts = Object.entries(episode.breakdown);
  const total = episode.timings.total ?? TIMES.reduce((sum, [name]) => sum + (episode.timings[name] ?? 0), 0);
  const pair = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  return h(
    "aside.aside",
    {},
    h("section", {}, h("h2", {}, "Score"), h("dl.pairs", {}, pair("reward", number(episode.reward)), episode.advantage !== null && pair("advantage", signed(episode.advantage, 3)), pair("ending", episode.ending.replaceAll("_", " "))), parts.length ? h("div.parts", {}, parts.map(([name, value]) => [h("span", {}, name.replaceAll("_", " ")), h("span.meter", { vars: { "--v": String(Math.max(0, Math.min(1, value))) } }, h("i")), h("span", {}, number(value))])) : null, episode.detail && h("p.muted.prose", {}, episode.detail)),
    episode.flags.length ? h("section.flags", {}, h("h2", {}, "To look at"), h("ul", {}, episode.flags.map((flag) => h("li", {}, flag)))) : null,
    total ? h("section", {}, h("h2", {}, "Time"), h("div.strip", { role: "img", "aria-label": TIMES.map(([name]) => `${name} ${seconds(episode.timings[name] ?? 0)}`).join(", ") }, TIMES.map(([name, hue]) => h("i", { vars: { "--v": String((episode.timings[name] ?? 0) / total), "--c": `var(${hue})` } }))), h("dl.pairs", {}, TIMES.map(([name, hue]) => [h("dt", {}, h("i.swatch", { vars: { "--c": `var(${hue})` } }), name), h("dd", {}, seconds(episode.timings[name]))]), pair("total", seconds(episode.timings.total)))) : null,
    h("section", {}, h("h2", {}, "Length"), h("dl.pairs", {}, pair("turns", number(episode.turns)), pair("format errors", number(episode.format_errors)), pair("sampled tokens", number(episode.sampled)), pair("all tokens", number(episode.tokens)), episode.version !== null && pair("policy version", number(episode.version)), episode.time && pair("written", ago(episode.time)))),
    episode.group.length > 1 ? h("section", {}, h("h2", {}, h("a", { href: `${base}/group?${new URLSearchParams({ stage: episode.stage, step: episode.step ?? "", grp: episode.grp })}` }, `Group of ${episode.group.length}`)), membersOf(episode.group.map((row) => [row.key, row.reward, row.passed, row.advantage, row.ending]), base, episode.key)) : null,
    episode.again ? h("section", {}, h("h2", {}, "Run it again from here"), command(episode.again)) : null,
  );
}
