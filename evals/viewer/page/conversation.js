// Messages as people read them: what was said, calls and what they answered folded.

import { h, number } from "./dom.js";
import { patchOf, changeOf } from "./diff.js";

const LONG = 6000, SHORT = 400;

export function conversation(messages, { quiet = false } = {}) {
  let turn = 0;
  return messages.map((message) => {
    if (message.role === "assistant") turn += 1;
    return one(message, turn, quiet);
  });
}

function one(message, turn, quiet) {
  const calls = message.calls ?? [];
  const content = message.content ?? "";
  const header = h("header", {}, h("b", {}, message.role), message.role === "assistant" ? `turn ${turn}` : message.name ?? "");
  const parts = [];
  if (message.thinking) parts.push(fold("thinking", firstLine(message.thinking), h("div.prose.thinking", {}, text(message.thinking)), sizeOf(message.thinking), false));
  if (message.role === "tool" || message.role === "system") parts.push(fold(message.role === "system" ? "prompt" : "answer", firstLine(content), h("pre.raw", {}, text(content)), sizeOf(content), content.length <= SHORT && !quiet && message.role === "tool"));
  else if (content || !calls.length) parts.push(looksLikeDiff(content) ? patchOf(content) : proseOf(content || "(nothing)"));
  for (const call of calls) parts.push(callOf(call, quiet));
  return h("section.message", { class: ["assistant", "user", "tool", "system"].includes(message.role) ? message.role : "" }, header, parts);
}

// What stands between fences is code, with its fences: a reader sees what was written, not what it may mean.
function proseOf(content) {
  const parts = content.split(/^(```[^\n]*\n[\s\S]*?^```[^\S\n]*$)/m);
  return parts.map((part, place) => (place % 2 ? h("pre.raw.code", {}, text(part)) : part.trim() && h("div.prose", {}, text(part.replace(/^\n|\n$/g, "")))));
}

function callOf(call, quiet) {
  const given = Object.entries(call.arguments ?? {});
  const told = given.map(([, value]) => firstLine(plain(value))).join("  ");
  const body = h("div", {});
  const pair = ["search", "replace"].every((name) => typeof call.arguments?.[name] === "string");
  for (const [name, value] of given) {
    if (pair && (name === "search" || name === "replace")) continue;
    body.append(h("div.arg", {}, name), looksLikeDiff(plain(value)) ? patchOf(plain(value)) : h("pre.raw", {}, text(plain(value))));
  }
  if (pair) body.append(changeOf(call.arguments.search, call.arguments.replace));
  if (!given.length) body.append(h("p.muted", {}, "without arguments"));
  const size = given.reduce((sum, [, value]) => sum + plain(value).length, 0);
  return foldOf(h("b", {}, call.name), told, body, null, !quiet && size > 0 && size <= SHORT * 2);
}

const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
const firstLine = (value) => (value.split("\n").find((line) => line.trim()) ?? "").slice(0, 160);
const looksLikeDiff = (value) => /^diff --git |^--- \S.*\n\+\+\+ \S/m.test(value) && /^@@ /m.test(value);

function sizeOf(value) {
  const lines = value.split("\n").length;
  return lines > 1 ? `${number(lines)} lines` : `${number(value.length)} characters`;
}

const fold = (name, told, body, size, open) => foldOf(h("b", {}, name), told, h("div", {}, body), size, open);

function foldOf(name, told, body, size, open) {
  return h("details.fold", { open }, h("summary", {}, name, h("code", {}, told), size && h("span.size", {}, size)), body);
}

// A long text shows its head and tail until it is asked for.
export function text(value) {
  if (value.length <= LONG) return value;
  const half = LONG / 2;
  const rest = h("button.more", { type: "button" }, `… ${number(value.length - LONG)} more characters`);
  const box = h("span", {}, value.slice(0, half), "\n", rest, "\n", value.slice(-half));
  rest.addEventListener("click", () => box.replaceChildren(document.createTextNode(value)));
  return box;
}
