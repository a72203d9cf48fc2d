// Tokens, shaded by what the reader wants to know of them.

import { h, fill, number, segmented, NONE } from "./dom.js";
import { ask } from "./api.js";

const LEVELS = 6, CHUNK = 1000;
const clamp = (value) => Math.max(-1, Math.min(1, value));
const sampledOnly = (name) => (s, i) => s[name]?.[i];

// name, what it is called, its value at a token, its size on the scale in [-1, 1], and the ends of the scale.
const OVERLAYS = [
  { name: "mask", text: "loss mask", value: (s, i) => s.loss_mask[i], size: (v) => (v ? 0.55 : 0), hues: ["cool", "cool"], ends: ["not learned", "learned"] },
  { name: "logprobs", text: "log-probability", value: sampledOnly("logprobs"), size: (v) => clamp(-v / 5), hues: ["cool", "warm"], ends: ["0", "−5 nats"] },
  { name: "entropy", text: "entropy", value: sampledOnly("entropy"), size: (v) => clamp(v / 4), hues: ["cool", "cool"], ends: ["0", "4 nats"] },
  { name: "mismatch", text: "trainer − sampler", value: (s, i) => (num(s.trainer_logprobs?.[i]) && num(s.logprobs?.[i]) ? s.trainer_logprobs[i] - s.logprobs[i] : null), size: (v, most) => clamp(v / most), hues: ["down", "up"], fit: 0.02, ends: ["sampler likelier", "trainer likelier"] },
  { name: "advantage", text: "advantage", value: sampledOnly("advantage"), size: (v, most) => clamp(v / most), hues: ["down", "up"], fit: 0.1, ends: ["less", "more"] },
  { name: "ratio", text: "ratio and clip", value: sampledOnly("ratio"), size: (v, most) => clamp(Math.log(Math.max(v, 1e-6)) / most), hues: ["down", "up"], fit: 0.05, log: true, ends: ["below 1", "above 1"] },
  { name: "version", text: "policy version", value: (s, i) => (s.policy_version[i] < 0 ? null : s.policy_version[i]), kinds: true },
  { name: "role", text: "role", value: (s, i) => s.roles[i], kinds: true },
];
const num = (value) => value !== null && value !== undefined;
const FACTS = [["logprobs", "log-probability", 4], ["trainer_logprobs", "trainer", 4], ["entropy", "entropy", 3], ["advantage", "advantage", 3], ["ratio", "ratio", 4], ["clipped", "clipped", 0], ["correction", "correction", 3]];

export async function showTokens(page) {
  const { run, episode, query, signal, base } = page;
  fill(page.main, h("p.muted", {}, "reading …"));
  const { segments } = await ask("tokens", { run: run.id, key: episode.key }, signal);
  if (!segments.length) {
    const why = run.kind === "training" ? "Its tokens were not kept. [record] in a recipe says of what share they are: tokens = 0.02 is the default; those that have them can be filtered in the table." : "The policy told no tokens, or verigym eval ran without --save-trajectories.";
    return fill(page.main, h("p.muted", {}, why));
  }
  let at = Math.min(Number(query.segment) || 0, segments.length - 1), overlay = OVERLAYS.find((one) => one.name === query.overlay) ?? OVERLAYS[1], here = -1;
  const controls = h("div.bar"), scale = h("div.scale"), branches = h("div"), box = h("div.tokens", { tabindex: 0, role: "group", "aria-label": "Tokens; the arrow keys go from one to the next" }), readout = h("div.readout", { role: "status" });
  let spans = [];
  fill(page.main, branches, controls, scale, box, readout);

  const known = (one) => segments.some((segment) => segment.loss_mask.some((_, i) => num(one.value(segment, i))));
  const choices = OVERLAYS.filter(known);
  if (!choices.includes(overlay)) overlay = choices[0];

  function remember() {
    const more = new URLSearchParams({ tab: "tokens", overlay: overlay.name, ...(at ? { segment: at } : {}) });
    history.replaceState(null, "", `${base}/episode/${encodeURIComponent(episode.key)}?${more}`);
  }
  function drawControls() {
    fill(controls, segmented("Overlay", choices.map((one) => [one.name, one.text]), overlay.name, (name) => { overlay = OVERLAYS.find((one) => one.name === name); remember(); drawControls(); shade(); }));
  }
  function drawTree() {
    if (segments.length < 2) return;
    const below = (parent) => {
      const own = segments.map((segment, place) => [segment, place]).filter(([segment]) => (segment.parent ?? null) === parent);
      return own.length ? h("ul", { class: parent === null ? "tree" : "" }, own.map(([segment, place]) => h("li", {}, h("button", { type: "button", "aria-pressed": String(place === at), onclick: () => { at = place; here = -1; remember(); drawTree(); drawTokens(); } }, `branch ${place + 1}`), h("span.muted", {}, parent === null ? `${number(segment.length)} tokens` : `leaves after ${number(segment.shared)} tokens, ${number(segment.length - segment.shared)} of its own`), below(place)))) : null;
    };
    fill(branches, below(null));
  }
  function drawTokens() {
    const segment = segments[at];
    spans = [];
    fill(box);
    if (segment.first) box.append(h("p.muted", {}, `… ${number(segment.first)} tokens before these are not shown`));
    for (let start = 0; start < segment.token_ids.length; start += CHUNK) {
      const chunk = h("div.chunk");
      for (let i = start; i < Math.min(start + CHUNK, segment.token_ids.length); i++) {
        const text = segment.text.length ? segment.text[i] : null;
        const span = h("span.t", { class: `${text === null ? "id" : ""} ${segment.first + i < segment.shared ? "shared" : ""}` });
        if (text === null) span.append(String(segment.token_ids[i]));
        else if (text.includes("\n")) span.append(...marked(text));
        else span.append(text);
        span.index = i;
        spans.push(span);
        chunk.append(span);
      }
      box.append(chunk);
    }
    shade();
    point(here);
  }
  function shade() {
    const segment = segments[at];
    const values = spans.map((_, i) => overlay.value(segment, i));
    const sizes = overlay.fit ? values.filter(num).map((value) => Math.abs(overlay.log ? Math.log(Math.max(value, 1e-6)) : value)).sort((a, b) => a - b) : [];
    const most = Math.max(overlay.fit ?? 1, sizes[Math.floor(sizes.length * 0.98)] ?? 0);
    const kinds = overlay.kinds ? [...new Set(values.filter(num))] : [];
    spans.forEach((span, i) => {
      const value = values[i];
      span.className = span.className.split(" ").filter((name) => ["t", "id", "shared", "here"].includes(name)).join(" ");
      if (!num(value)) return span.classList.add("off");
      if (overlay.kinds) return span.classList.add(`v${kinds.indexOf(value) % 6}`);
      const size = overlay.size(value, most);
      const level = Math.ceil(Math.abs(size) * LEVELS - 0.01);
      if (level > 0) span.classList.add(`p${Math.min(level, LEVELS)}`, `hue-${overlay.hues[size < 0 ? 0 : 1]}`);
      else if (overlay.name === "mask") span.classList.add("off");
      if (overlay.name === "ratio" && segment.clipped?.[i]) span.classList.add("clipped");
    });
    if (overlay.kinds) return fill(scale, kinds.slice(0, 12).map((kind, place) => [h("span.ramp", {}, h("i", { class: `v${place % 6}` })), overlay.name === "version" ? `version ${kind}` : kind]));
    const ramp = (hue) => Array.from({ length: LEVELS }, (_, level) => h("i", { class: `p${level + 1} hue-${hue}` }));
    const both = overlay.hues[0] !== overlay.hues[1] && overlay.fit;
    const edge = overlay.log ? `×${Math.exp(most).toFixed(2)}` : number(most);
    if (overlay.name === "mask") fill(scale, h("span.ramp", {}, h("i", { class: "p4 hue-cool" })), "learned");
    else fill(scale, overlay.ends[0], h("span.ramp", {}, both && ramp(overlay.hues[0]).reverse(), ramp(overlay.hues[1])), overlay.ends[1], overlay.fit && h("span", {}, `(the darkest: ${edge})`), overlay.name === "ratio" && h("span", {}, h("span.clipped", {}, "underlined"), ": clipped, no gradient"));
  }
  function point(index) {
    if (here >= 0) spans[here]?.classList.remove("here");
    here = index;
    const segment = segments[at];
    if (here < 0 || here >= spans.length) {
      return fill(readout, h("div.muted", {}, "Point at a token."), h("div", {}, h("span", {}, "tokens"), number(segment.length)), h("div", {}, h("span", {}, "learned"), number(segment.loss_mask.reduce((sum, value) => sum + value, 0))));
    }
    spans[here].classList.add("here");
    const fact = (name, value) => h("div", { title: `${name} ${value}` }, h("span", {}, name), value);
    const mismatch = OVERLAYS[3].value(segment, here);
    fill(
      readout,
      fact("token", `${number(segment.first + here)}`),
      fact("id", segment.token_ids[here]),
      fact("text", segment.text.length ? JSON.stringify(segment.text[here]) : NONE),
      fact("role", segment.roles[here]),
      fact("version", segment.policy_version[here] < 0 ? NONE : segment.policy_version[here]),
      FACTS.filter(([name]) => segment[name]).map(([name, text, digits]) => fact(text, name === "clipped" ? (num(segment[name][here]) ? (segment[name][here] ? "yes" : "no") : NONE) : num(segment[name][here]) ? segment[name][here].toFixed(digits) : NONE)),
      mismatch !== null && fact("trainer − sampler", mismatch.toFixed(4)),
    );
  }
  box.addEventListener("pointerover", (event) => {
    const span = event.target.closest(".t");
    if (span) point(span.index);
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    point(Math.max(0, Math.min(spans.length - 1, here + step)));
    spans[here].scrollIntoView({ block: "nearest" });
  });
  drawControls();
  drawTree();
  drawTokens();
}

function marked(text) {
  return text.split(/(\n)/).map((part) => (part === "\n" ? [h("span.nl", { "aria-hidden": "true" }, "↵"), document.createTextNode("\n")] : document.createTextNode(part))).flat();
}
