// Elements and texts. Everything that comes from a run goes through `h`, which makes text nodes of it and nothing else.

export function h(tag, attributes, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.classList.add(...value.split(" ").filter(Boolean));
    else if (key === "vars") for (const [own, set] of Object.entries(value)) element.style.setProperty(own, set);
    else if (value === true) element.setAttribute(key, "");
    else element.setAttribute(key, String(value));
  }
  add(element, children);
  return element;
}

export function add(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child instanceof Node ? child : String(child));
  }
}

export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

const sheets = new Map();

// A stylesheet that only some of the pages need: there before what it is for is drawn.
export function styled(place) {
  if (!sheets.has(place)) {
    const link = h("link", { rel: "stylesheet", href: new URL(place, import.meta.url) });
    sheets.set(place, new Promise((done) => ["load", "error"].forEach((end) => link.addEventListener(end, done))));
    document.head.append(link);
  }
  return sheets.get(place);
}

export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

export const NONE = "–";

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace("e+", "e");
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : digits);
}

export function signed(value, digits = 2) {
  if (value === null || value === undefined) return NONE;
  return (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(digits);
}

export const percent = (value, digits = 1) =>
  value === null || value === undefined ? NONE : `${(100 * value).toFixed(digits)} %`;

export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.round((value % 3600) / 60)} min`;
}

export function ago(moment) {
  const past = Date.now() / 1000 - moment;
  if (past < 5) return "now";
  if (past < 90) return `${Math.round(past)} s ago`;
  if (past < 5400) return `${Math.round(past / 60)} min ago`;
  if (past < 129600) return `${Math.round(past / 3600)} h ago`;
  return new Date(moment * 1000).toISOString().slice(0, 10);
}

export const verdictOf = (passed) => (passed === null || passed === undefined ? "none" : passed ? "passed" : "failed");

export const OUTCOMES = { passed: "passed", failed: "not passed", none: "no verdict" };

export function outcome(passed, text) {
  const kind = verdictOf(passed);
  return h("span.outcome", { class: kind }, h("i.dot", { "aria-hidden": "true" }), text ?? OUTCOMES[kind]);
}

export function copyButton(text) {
  const button = h("button.quiet", { type: "button", title: "Copy" }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      const range = document.createRange();
      const shown = button.previousElementSibling;
      if (shown) range.selectNodeContents(shown);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "selected";
    }
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
  return button;
}

export const command = (text) => h("div.command", {}, h("code", {}, text), copyButton(text));

export function spark(values, label) {
  const box = svg("svg", { class: "spark", viewBox: "0 0 90 22", width: 90, height: 22, role: "img", "aria-label": label });
  if (values.length < 2) return box;
  const low = Math.min(...values), range = Math.max(...values) - low || 1;
  const at = (value, place) => `${((place / (values.length - 1)) * 86 + 2).toFixed(1)},${(19 - ((value - low) / range) * 16).toFixed(1)}`;
  box.append(svg("polyline", { points: values.map(at).join(" "), fill: "none" }));
  return box;
}

export function segmented(name, choices, chosen, onchoose) {
  const group = h("div.segmented", { role: "group", "aria-label": name });
  for (const [value, text] of choices) {
    group.append(h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => onchoose(value) }, text));
  }
  return group;
}
