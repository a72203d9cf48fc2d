// The samples of a group, beside each other.

import { h, fill, number, signed, outcome, styled } from "./dom.js";
import { ask } from "./api.js";
import { conversation } from "./conversation.js";
import { patchOf } from "./diff.js";

const MOST = 16;

export async function showGroup(page) {
  const { run, base, query, signal } = page;
  const asked = { run: run.id, stage: query.stage, grp: query.grp, step_min: query.step, step_max: query.step, sort: "reward", limit: 200 };
  const [{ rows }] = await Promise.all([ask("episodes", asked, signal), styled("reading.css")]);
  if (!rows.length) throw new Error("the run has no such group");
  const shown = rows.slice(0, MOST);
  const graded = rows.filter((row) => row.reward !== null);
  const mean = graded.length ? graded.reduce((sum, row) => sum + row.reward, 0) / graded.length : null;
  const columns = shown.map((row) => h("article", {}, h("header", {}, h("h3", {}, h("a", { href: `${base}/episode/${encodeURIComponent(row.key)}` }, `sample ${row.sample}`)), h("dl.pairs", {}, pairs(row)), h("p.muted", {}, row.detail)), h("div.talk", {}, h("p.muted", {}, "…"))));
  const unfold = h("button", { type: "button", onclick: () => { const folds = [...page.main.querySelectorAll("details")]; const open = folds.some((one) => !one.open); folds.forEach((one) => (one.open = open)); } }, "Unfold all");
  fill(
    page.main,
    h("div.head", {}, h("h1", {}, rows[0].task), h("span.muted", {}, [query.step ? `step ${query.step}` : "", rows[0].family].filter(Boolean).join(" · "))),
    h("dl.facts", {}, fact("samples", rows.length), fact("passed", `${rows.filter((row) => row.passed).length} of ${graded.length}`), fact("mean reward", number(mean))),
    h("div.bar", {}, unfold, rows.length > MOST && h("span.muted", {}, `The first ${MOST} of ${rows.length}.`)),
    h("div.side-by-side", { tabindex: 0, role: "group", "aria-label": "Samples of the group" }, columns),
  );
  await Promise.all(
    shown.map(async (row, place) => {
      const episode = await ask("episode", { run: run.id, key: row.key }, signal);
      const own = (episode.messages ?? []).filter((message) => !["system", "user"].includes(message.role));
      fill(columns[place].querySelector(".talk"), episode.messages ? conversation(own, { quiet: true }) : h("p.muted", {}, "The conversation was not kept."), episode.evidence?.patch ? [h("h2", {}, "Patch"), patchOf(episode.evidence.patch)] : null);
    }),
  );
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function pairs(row) {
  const told = [["outcome", outcome(row.passed)], ["reward", number(row.reward)], ["advantage", signed(row.advantage)], ["ending", row.ending.replaceAll("_", " ")], ["turns", number(row.turns)], ["tokens", number(row.sampled)]];
  return told.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
}
