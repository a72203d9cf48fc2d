// What the keyboard does.

import { h } from "./dom.js";

const KEYS = [
  ["/", "search"],
  ["j k", "next and previous row"],
  ["Enter", "open it"],
  ["← →", "older and newer episode; token by token in the tokens"],
  ["[ ]", "the samples of the same group"],
  ["1 … 5", "the tabs of a run or of an episode"],
  ["e", "unfold or fold everything"],
  ["d", "light or dark"],
  ["h", "all runs"],
  ["?", "this list"],
];

export function helpOf() {
  const rows = KEYS.map(([key, text]) => h("tr", {}, h("td", {}, key.split(" ").map((one) => (one === "…" ? " … " : h("kbd", {}, one)))), h("td", {}, text)));
  const close = h("button", { type: "button", autofocus: true }, "Close");
  const dialog = h("dialog", { "aria-label": "Keys" }, h("h2", {}, "Keys"), h("table", {}, h("tbody", {}, rows)), close);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

export const isTyping = (event) => event.target.closest("input, select, textarea, [role=textbox]") || event.ctrlKey || event.metaKey || event.altKey;
