// Elements and numbers. Text from data becomes text nodes alone: no function here reads HTML.

export const NOT_RUN = "not run";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else if (key.startsWith("--")) node.style.setProperty(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An element; `--x` sets a property of its style, a function listens to an event. */
export function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

/** A name from data, kept apart from the text around it whichever way it is written; a long one is cut, and told whole. */
export function named(text, attributes, most = 60) {
  const whole = text === null || text === undefined ? "" : String(text);
  const letters = Array.from(whole);
  const long = letters.length > most;
  return el("bdi", { class: "name", title: long ? whole : null, ...attributes }, long ? `${letters.slice(0, most).join("")}…` : whole);
}

/** A number on cells that did not choose it, and behind it, dim, the one on those that did. */
export function both(held, chosen, write) {
  return el("span", {}, `${write(held)} `, el("span", { class: "dim" }, `(${write(chosen)})`));
}

/** A number as people write it; nothing is `not run`. */
export function num(value, digits = 3) {
  if (value === null || value === undefined) return NOT_RUN;
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1).replace("e", " e").replace("e+", "e");
  return value.toLocaleString("en", { maximumSignificantDigits: size >= 100 ? 4 : digits });
}

export function fixed(value, places = 2) {
  return value === null || value === undefined ? NOT_RUN : value.toFixed(places);
}

/** A share in percent, with the digits that its size asks for. */
export function percent(value) {
  if (value === null || value === undefined) return NOT_RUN;
  const hundredths = value * 100;
  if (hundredths === 0) return "0 %";
  if (hundredths > 0 && hundredths < 0.01) return "< 0.01 %";
  return `${hundredths.toFixed(hundredths >= 9.95 ? 0 : hundredths >= 0.995 ? 1 : 2)} %`;
}

/** A probability; what is smaller than a double tells is not zero. */
export function chance(value) {
  if (value === 0) return "< 1 e-300";
  return num(value, 2);
}

/** A bar below a number: how much of the longest one it is. */
export function bar(value, most, kind = "") {
  if (value === null || value === undefined || !(most > 0)) return null;
  const share = Math.min(1, Math.abs(value) / most);
  const sign = value < 0 ? " minus" : "";
  return el("span", { class: `bar ${kind}${sign}`, "aria-hidden": "true" }, el("i", { "--share": `${100 * share}%` }));
}

/** A table of cells that are nodes or text; `n` marks columns of numbers. */
export function table(label, heads, rows, groups) {
  const cell = (tag, head, content) =>
    el(tag, { class: head.n ? "n" : null, scope: tag === "th" ? "col" : null, title: head.title }, content);
  const above = groups && el("tr", {}, groups.map(([text, span]) =>
    el("th", { class: "span", colspan: span, scope: "colgroup" }, text)));
  return el("div", { class: "wide", tabindex: 0, role: "group", "aria-label": label },
    el("table", {},
      el("thead", {}, above, el("tr", {}, heads.map((head) => cell("th", head, head.text)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((content, i) => cell("td", heads[i], content)))))));
}
