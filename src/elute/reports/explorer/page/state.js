// What is chosen, and the address that says so: a view can be sent as a link, and the way back leads back.

const VIEWS = { list: "Features", map: "Maps", compare: "Compare", about: "About" };
const TOGGLES = ["alive", "sig", "named"];
const SOON = 300; // milliseconds after the last key before a search is written into the address

/** For each key of the fragment, what of a text from outside is taken; "" is nothing chosen. */
const KEYS = {
  site: (text) => (INFO.sites.some((one) => one.key === text) ? text : INFO.sites[0].key),
  view: (text) => (Object.hasOwn(VIEWS, text) ? text : "list"),
  sort: (text) => text.slice(0, 80),
  q: (text) => text.slice(0, 200),
  f: (text) => TOGGLES.filter((one) => text.split(",").includes(one)).join(","),
  type: (text) => text.slice(0, 400),
  kind: (text) => text.slice(0, 400),
  lib: (text) => text.slice(0, 80),
  feature: (text) => (/^\d{1,9}$/.test(text) ? String(Number(text)) : ""),
  with: (text) => (/^(?:[\w-]{1,20}:)?(?:\d{1,9})?$/.test(text) ? text : ""),
  cols: (text) => text.slice(0, 800),
  theme: (text) => (text === "light" || text === "dark" ? text : ""),
  color: (text) => text.slice(0, 800),
  tint: (text) => text.slice(0, 800),
  side: (text) => text.slice(0, 40),
  lasso: (text) => text.slice(0, 800),
};
const UNSAID = { site: () => INFO.sites[0].key, view: () => "list" }; // what the address leaves out

/** What is chosen, as the texts of the fragment. */
const chosen = Object.fromEntries(Object.keys(KEYS).map((key) => [key, KEYS[key]("")]));
const listeners = [];
let waiting = 0; // the timer of an address that is yet to be written
let written = null; // the fragment as it was last read or written

function cleaned(values) {
  return Object.fromEntries(Object.entries(KEYS).map(([key, take]) => [key, take(String(values[key] ?? ""))]));
}

/** The address of this page with other choices. */
function addressOf(changes = {}) {
  const next = cleaned({ ...chosen, ...(changes.site && changes.site !== chosen.site ? { feature: "", with: "", type: "", color: "", lasso: "" } : {}), ...changes });
  const parts = Object.entries(next).filter(([key, value]) => value !== "" && value !== UNSAID[key]?.());
  return `#${new URLSearchParams(parts).toString().replace(/%3A/gi, ":").replace(/%2C/gi, ",")}`;
}

/** Read the address; what names nothing here is as nothing. Whether anything changed. */
function readAddress() {
  const text = location.hash;
  if (text === written) return false;
  clearTimeout(waiting);
  written = text;
  const next = cleaned(Object.fromEntries(new URLSearchParams(text.slice(1, 20_000))));
  const changed = Object.keys(next).some((key) => next[key] !== chosen[key]);
  Object.assign(chosen, next);
  return changed;
}

/** Call something after each change of what is chosen. */
function onChange(listener) {
  listeners.push(listener);
}

function announce() {
  for (const listener of listeners) listener();
}

function writeOver(address) {
  written = address === "#" ? "" : address;
  try {
    history.replaceState(history.state, "", address);
  } catch {
    location.replace(address);
  }
}

/**
 * Choose something else: null or "" chooses nothing. As a person goes from page to page, the way back leads here, but
 * `replace` puts the new address in the place of this one; `soon` writes it when no more changes come.
 */
function go(changes, { replace = false, soon = false } = {}) {
  clearTimeout(waiting);
  const address = addressOf(changes);
  const same = address === addressOf();
  Object.assign(chosen, cleaned(Object.fromEntries(new URLSearchParams(address.slice(1)))));
  if (soon) waiting = setTimeout(() => writeOver(addressOf()), SOON);
  else if (replace || same) writeOver(address);
  else {
    written = address;
    location.hash = address;
  }
  announce();
}

/** The number of the feature that is open, or null. */
function openNumber() {
  return chosen.feature === "" ? null : Number(chosen.feature);
}

/** Whether one of the plain filters is on. */
function toggled(name) {
  return chosen.f.split(",").includes(name);
}

const prefersLight = matchMedia("(prefers-color-scheme: light)");

/** The theme that the page wears: the one chosen, else the system's. Paper is always light. */
function wearTheme(paper = false) {
  const theme = paper ? "light" : chosen.theme || (prefersLight.matches ? "light" : "dark");
  if (document.documentElement.dataset.theme === theme) return;
  document.documentElement.dataset.theme = theme;
  document.dispatchEvent(new Event("elute:theme"));
}
