// Patches in colour, file by file.

import { h, number } from "./dom.js";

const MOST_LINES = 4000;

export function patchOf(patch) {
  const files = [];
  let file = null, old = 0, own = 0, inHunk = false, count = 0;
  for (const line of patch.replace(/\n$/, "").split("\n")) {
    if (line.startsWith("diff --git ") || (line.startsWith("--- ") && !inHunk && (!file || file.hunks))) {
      file = { name: "", added: 0, removed: 0, rows: [], hunks: 0 };
      files.push(file);
      inHunk = false;
    }
    if (!file) files.push((file = { name: "", added: 0, removed: 0, rows: [], hunks: 0 }));
    const hunk = line.match(/^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@/);
    if (hunk) {
      [old, own] = [Number(hunk[1]), Number(hunk[2])];
      inHunk = true;
      file.hunks += 1;
      file.rows.push(["h", "", "", line]);
    } else if (!inHunk) {
      const named = line.match(/^\+\+\+ (?:b\/)?(.*)$/) ?? line.match(/^diff --git a\/.* b\/(.*)$/);
      if (named && named[1] !== "/dev/null") file.name = named[1];
      else if (/^(new file|deleted|rename|Binary|GIT binary|similarity|old mode|new mode)/.test(line)) file.rows.push(["h", "", "", line]);
    } else if (line.startsWith("+")) {
      file.added += 1;
      file.rows.push(["a", "", own++, line]);
    } else if (line.startsWith("-")) {
      file.removed += 1;
      file.rows.push(["d", old++, "", line]);
    } else if (line.startsWith("\\")) file.rows.push(["h", "", "", line]);
    else file.rows.push(["", old++, own++, line]);
    count += 1;
    if (count > MOST_LINES) {
      file.rows.push(["h", "", "", `… only the first ${number(MOST_LINES)} lines are shown`]);
      break;
    }
  }
  return h("div", {}, files.map((one) => block(one.name || "patch", one.rows, one.added, one.removed)));
}

// What an edit puts in the place of what.
export function changeOf(search, replace) {
  const rows = [...search.split("\n").map((line) => ["d", "", "", `-${line}`]), ...replace.split("\n").map((line) => ["a", "", "", `+${line}`])];
  return block("edit", rows, replace.split("\n").length, search.split("\n").length);
}

function block(name, rows, added, removed) {
  const lines = h("div.lines", { tabindex: 0, role: "group", "aria-label": `Lines of ${name}` });
  for (const [kind, old, own, text] of rows) {
    if (kind === "h") lines.append(h("span.h", {}, text));
    else lines.append(h("span.ln", { class: kind, "aria-hidden": "true" }, old), h("span.ln", { class: kind, "aria-hidden": "true" }, own), h("span", { class: kind }, text || " "));
  }
  return h("details.diff", { open: rows.length < 600 }, h("summary", {}, name, h("span.add-count", {}, `+${added}`), h("span.del-count", {}, `−${removed}`)), lines);
}
