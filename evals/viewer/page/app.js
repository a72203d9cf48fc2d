// Where the address leads: "#/" the runs, "#/run/ID/TAB" one of them, "#/compare?runs=A,B" several.

import { h, fill, add } from "./dom.js";
import { showRuns } from "./runs.js";
import { showRun } from "./run.js";
import { helpOf } from "./keys.js";

const main = document.getElementById("main");
const crumbs = document.getElementById("crumbs");
const told = document.getElementById("told");
let leaving = new AbortController();

export function parts() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  return { path: path.split("/").filter(Boolean).map(decodeURIComponent), query: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

async function show() {
  const { path, query } = parts();
  leaving.abort();
  leaving = new AbortController();
  const page = { main, query, signal: leaving.signal, path, crumbs: setCrumbs, tell };
  tell("");
  try {
    if (!path.length) await showRuns(page);
    else if (path[0] === "run" && path[1]) await showRun(page);
    else if (path[0] === "compare") await (await import("./compare.js")).showCompare(page);
    else throw new Error(`there is no page ${path.join("/")}`);
    globalThis.early.clear(); // what nobody has taken is old by now
  } catch (error) {
    if (error.name === "AbortError") return;
    setCrumbs([]);
    fill(main, h("section.empty", {}, h("h1", {}, "Not found"), h("p", {}, error.message), h("p", {}, h("a", { href: "#/" }, "All runs"))));
  }
}

function setCrumbs(names) {
  fill(crumbs);
  document.title = ["verigym", ...names.map(([text]) => text)].reverse().join(" · ");
  for (const [text, href] of names) {
    add(crumbs, [h("span.slash", { "aria-hidden": "true" }, "/"), href ? h("a", { href }, text) : h("span", { "aria-current": "page" }, text)]);
  }
}

function tell(text) {
  told.textContent = text;
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  document.dispatchEvent(new CustomEvent("theme"));
}

function turnTheme() {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--dark").trim() === "1";
  setTheme(dark ? "light" : "dark");
  try {
    localStorage.setItem("theme", dark ? "light" : "dark");
  } catch {
    // kept for this visit alone
  }
}

try {
  const kept = localStorage.getItem("theme");
  if (kept) setTheme(kept);
} catch {
  // nothing is kept where the browser forbids it
}
document.getElementById("theme").addEventListener("click", turnTheme);
document.getElementById("keys").addEventListener("click", () => helpOf());
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.addEventListener("lost", (event) => tell(`The server does not answer: ${event.detail}`));
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "?") helpOf();
  else if (event.key === "d") turnTheme();
  else if (event.key === "/") {
    const field = main.querySelector("input[type=search]");
    if (field) {
      event.preventDefault();
      field.focus();
    }
  } else if (event.key === "h") location.hash = "#/";
});
window.addEventListener("hashchange", show);
show();
