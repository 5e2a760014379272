// Elements and numbers. Text from data becomes text nodes alone: no function here reads HTML.

const NOT_RUN = "not run";
const wholeNumbers = new Intl.NumberFormat("en", { maximumFractionDigits: 3 }); // made once: making one is slow
const digitsOf = Array.from({ length: 9 }, (_, n) => new Intl.NumberFormat("en", { maximumSignificantDigits: Math.max(1, n) }));

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else if (key.startsWith("--")) node.style.setProperty(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An element; `--x` sets a property of its style, a function listens to an event. */
function el(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function find(id) {
  return document.getElementById(id);
}

/** The first letters of a text, with a sign that there are more. */
function shortened(text, most) {
  const whole = text === null || text === undefined ? "" : String(text);
  if (whole.length <= most) return whole;
  const letters = Array.from(whole.slice(0, 2 * most + 2));
  return letters.length > most ? `${letters.slice(0, most).join("")}…` : whole;
}

/** A name from data, kept apart from the text around it whichever way it is written; a long one is cut, and told whole. */
function named(text, attributes, most = 60) {
  const whole = text === null || text === undefined ? "" : String(text);
  const short = shortened(whole, most);
  const blank = known(text) && whole.trim() === "";
  return el("bdi", { class: "name", title: short === whole ? null : whole, ...attributes }, blank ? `“${short}”` : short);
}

/** What stands behind a number: its control, its range, a word about it. */
function dim(...content) {
  return el("span", { class: "dim" }, content);
}

function below(...content) {
  return el("span", { class: "below" }, content);
}

/** Parts with something between them. */
function joined(parts, between = ", ") {
  return parts.flatMap((part, i) => (i ? [between, part] : [part]));
}

/** Whether there is a value. */
function known(value) {
  return value !== null && value !== undefined && !Number.isNaN(value);
}

/** What an object holds itself under a name from data, whatever that name is. */
function own(object, name) {
  return object && Object.hasOwn(object, name) ? object[name] : undefined;
}

/** A number as people write it; nothing is `not run`. */
function num(value, digits = 3) {
  if (!known(value)) return NOT_RUN;
  if (typeof value !== "number") return shortened(value, 60);
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value)) return wholeNumbers.format(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1).replace("e", " e").replace("e+", "e");
  return digitsOf[size >= 100 ? 4 : Math.min(digits, 8)].format(value);
}

function fixed(value, places = 2) {
  return known(value) ? Number(value).toFixed(places) : NOT_RUN;
}

/** A share in percent, with the digits that its size asks for. */
function percent(value) {
  if (!known(value)) return NOT_RUN;
  const hundredths = value * 100;
  if (hundredths === 0) return "0 %";
  if (hundredths > 0 && hundredths < 0.01) return "< 0.01 %";
  return `${hundredths.toFixed(Math.abs(hundredths) >= 9.95 ? 0 : Math.abs(hundredths) >= 0.995 ? 1 : 2)} %`;
}

/** A probability; what is smaller than a double tells is not zero. */
function chance(value) {
  return value === 0 ? "< 1 e-300" : num(value, 2);
}

/** A number with its writer; where there is none, dim words for that. */
function held(value, write = num, none = NOT_RUN) {
  return known(value) ? write(value) : dim(none);
}

/** A number on cells that did not choose it, and behind it, dim, the one on those that did. */
function both(shown, chosenOn, write) {
  if (!known(shown)) return known(chosenOn) ? dim(`(${write(chosenOn)})`) : dim(NOT_RUN);
  return [write(shown), known(chosenOn) ? dim(` (${write(chosenOn)})`) : null];
}

/** A bar below a number: how much of the longest one it is. */
function bar(value, most, kind = "") {
  if (!known(value) || !(most > 0)) return null;
  const share = Math.min(1, Math.abs(value) / most);
  return el("span", { class: `bar ${kind}${value < 0 ? " minus" : ""}`, "aria-hidden": "true" }, el("i", { "--share": `${100 * share}%` }));
}

/** A table of cells that are nodes or text; `n` marks columns of numbers. On a telephone a row of `cards` is a card. */
function table(label, heads, rows, kind = "") {
  const head = (one) => el("th", { class: one.n ? "n" : null, scope: "col", title: one.title }, one.text);
  const cell = (content, i) => (i
    ? el("td", { class: heads[i].n ? "n" : null, "data-label": heads[i].text }, content)
    : el("th", { scope: "row", class: heads[0].n ? "n" : null }, content));
  return el("div", { class: "wide", tabindex: 0, role: "group", "aria-label": label },
    el("table", { class: kind },
      el("caption", {}, label),
      el("thead", {}, el("tr", {}, heads.map(head))),
      el("tbody", {}, rows.map((row) => el("tr", { class: row.kind }, (row.cells ?? row).map(cell))))));
}

/** Terms and their values, beside one another. */
function factsOf(pairs) {
  return el("dl", { class: "facts" }, pairs.filter(Boolean).map(([term, value, title]) =>
    el("div", { title }, el("dt", {}, term), el("dd", {}, value))));
}
