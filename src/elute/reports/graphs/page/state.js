// What is chosen, and the address that says so: a look at a graph, with pins and supernodes, can be sent as a link.

const VIEWS = { graph: "Graph", layers: "Layer to layer", scores: "Scores" };
const LINKS = { node: "of a node", strong: "strongest", all: "all" };
const MEASURES = { weight: "summed |weight|", share: "share of what comes in", count: "number of links" };
const ORDERS = { position: "by position", influence: "by influence" };
const LONGEST = 60_000; // of an address
const oneOf = (known, first) => (text) => (Object.hasOwn(known, text) && text !== first ? text : "");

/** For each key of the fragment, what of a text from outside is taken; "" is nothing chosen. */
const KEYS = {
  view: oneOf(VIEWS, "graph"),
  node: (text) => text.slice(0, 10_000),
  at: (text) => (/^\d{1,9}$/.test(text) ? text : ""),
  q: (text) => text.slice(0, 200),
  least: (text) => (/^\d{1,3}$/.test(text) && Number(text) <= 100 ? String(Number(text)) : ""),
  links: oneOf(LINKS, "node"),
  errors: (text) => (text === "no" ? text : ""),
  order: (text) => (Object.hasOwn(ORDERS, text) ? text : ""),
  only: (text) => (text === "pins" ? text : ""),
  pins: (text) => text.slice(0, LONGEST),
  groups: (text) => text.slice(0, LONGEST),
  open: (text) => (/^\d{1,4}(,\d{1,4}){0,999}$/.test(text) ? text : ""),
  cell: (text) => (/^-?\d{1,7}-\d{1,7}$/.test(text) ? text : ""),
  measure: oneOf(MEASURES, "weight"),
  theme: (text) => (text === "light" || text === "dark" ? text : ""),
};

/** What is chosen, as the texts of the fragment. */
const chosen = Object.fromEntries(Object.keys(KEYS).map((key) => [key, ""]));
const listeners = [];
let written = null; // the fragment as it was last read or written
let waiting = 0;

function cleaned(values) {
  return Object.fromEntries(Object.entries(KEYS).map(([key, take]) => [key, take(String(values[key] ?? ""))]));
}

/** The address of this page with other choices. */
function addressOf(changes = {}) {
  const parts = Object.entries(cleaned({ ...chosen, ...changes })).filter(([, value]) => value !== "");
  return `#${new URLSearchParams(parts).toString().replace(/%3A/gi, ":").replace(/%2C/gi, ",")}`;
}

/** Read the address; what names nothing here is as nothing. Whether anything changed. */
function readAddress() {
  if (location.hash === written) return false;
  clearTimeout(waiting);
  written = location.hash;
  const next = cleaned(Object.fromEntries(new URLSearchParams(written.slice(1, 4 * LONGEST))));
  const changed = Object.keys(next).some((key) => next[key] !== chosen[key]);
  Object.assign(chosen, next);
  return changed;
}

function onChange(listener) {
  listeners.push(listener);
}

function writeOver(address) {
  written = address === "#" ? "" : address;
  try {
    history.replaceState(history.state, "", address);
  } catch {
    location.replace(address);
  }
}

/** Choose something else. The way back leads here; `replace` puts the new address in the place of this one, soon. */
function go(changes, { replace = false } = {}) {
  clearTimeout(waiting);
  const address = addressOf(changes);
  const same = address === addressOf();
  Object.assign(chosen, cleaned({ ...chosen, ...changes }));
  if (replace || same) waiting = setTimeout(() => writeOver(addressOf()), 200);
  else {
    written = address;
    location.hash = address;
  }
  for (const listener of listeners) listener();
}

const prefersLight = matchMedia("(prefers-color-scheme: light)");

/** The theme that the page wears: the one chosen, else the system's. Paper is always light. */
function wearTheme(paper = false) {
  const theme = paper ? "light" : chosen.theme || (prefersLight.matches ? "light" : "dark");
  if (document.documentElement.dataset.theme === theme) return;
  document.documentElement.dataset.theme = theme;
  document.dispatchEvent(new Event("elute:theme"));
}
