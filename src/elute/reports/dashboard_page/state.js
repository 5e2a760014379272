// The data of the page, what is chosen of them, and the address that says so.

import { el } from "./text.js";

export const DATA = JSON.parse(document.getElementById("data").textContent);

/** What is chosen. `sort` is null while the page decides: by match in a search, else by frequency. */
export const chosen = { site: 0, feature: null, query: "", kind: "", sort: null, descending: true };

const cache = new Map();

function once(key, make) {
  if (!cache.has(key)) cache.set(key, make());
  return cache.get(key);
}

export function site() {
  return DATA.sites[chosen.site];
}

/** The rows of a table as objects: data lie by column, as in Parquet. */
function objects(columns) {
  const names = Object.keys(columns);
  const length = names.length ? columns[names[0]].length : 0;
  return Array.from({ length }, (_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
}

export function features() {
  return once(`${chosen.site}/features`, () => objects(site().features));
}

export function feature(number) {
  return once(`${chosen.site}/byNumber`, () => new Map(features().map((row) => [row.feature, row]))).get(number);
}

/** A feature's rows of a table; null where the table was not made. */
export function rowsOf(name, number) {
  if (!site()[name]) return null;
  const by = once(`${chosen.site}/${name}`, () => Map.groupBy
    ? Map.groupBy(objects(site()[name]), (row) => row.feature)
    : objects(site()[name]).reduce((map, row) => map.set(row.feature, [...(map.get(row.feature) ?? []), row]), new Map()));
  return by.get(number) ?? [];
}

/** Whether cells were held out: then what was chosen on some is shown on others. */
export function heldOut() {
  return (site().features.auroc_shown ?? []).some((value) => value !== null)
    || (site().feature_genes?.z_shown ?? []).some((value) => value !== null);
}

/** The words by which a feature is found: its genes in their order, by symbol and by id. */
function words(row) {
  return once(`${chosen.site}/words/${row.feature}`, () => {
    const found = new Map();
    const add = (text, at) => {
      const word = text === null || text === undefined ? "" : String(text).toLowerCase();
      if (word && !(found.get(word)?.at <= at)) found.set(word, { at, text: String(text) });
    };
    (row.top_genes ?? []).forEach((text, at) => add(text, at));
    for (const gene of rowsOf("feature_genes", row.feature) ?? []) {
      const at = gene.rank ?? 1000 + (gene.rank_raw ?? 0);
      add(gene.symbol, at);
      add(gene.gene, at);
    }
    (row.top_genes_raw ?? []).forEach((text, at) => add(text, 1000 + at));
    return found;
  });
}

/** How well a feature fits a search: smaller is better, null is not at all; and by which gene. */
export function fit(row, query) {
  if (!query) return { at: 0 };
  if (query.replace(/^#/, "") === String(row.feature)) return { at: -1 };
  const known = words(row);
  if (known.has(query)) return { at: known.get(query).at, by: known.get(query).text };
  let best = null;
  for (const [word, { at, text }] of known) {
    const place = word.indexOf(query);
    if (place < 0) continue;
    const score = (place === 0 ? 1e4 : 1e6) + at;
    if (!best || score < best.at) best = { at: score, by: text };
  }
  if (String(row.cell_type ?? "").toLowerCase().includes(query)) return { at: Math.min(best?.at ?? 1e5, 1e5), by: best?.by };
  return best;
}

/** The features that are shown, in their order. */
export function matching() {
  const query = chosen.query.trim().toLowerCase();
  const found = features()
    .filter((row) => !chosen.kind || row.kind === chosen.kind)
    .map((row) => ({ row, fit: fit(row, query) }))
    .filter((item) => item.fit);
  const key = chosen.sort ?? (query ? "match" : "frequency");
  const value = (item) => (key === "match" ? item.fit.at : valueOf(item.row, key));
  const sign = key !== "match" && chosen.descending ? -1 : 1;
  return found.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return sign * order || b.row.frequency - a.row.frequency || a.row.feature - b.row.feature;
  });
}

function valueOf(row, key) {
  if (key === "genes") return row.top_genes?.[0] ?? null;
  if (key === "auroc") return row.auroc_shown ?? row.auroc ?? null;
  return row[key] ?? null;
}

export function address(number, at = chosen.site) {
  const name = encodeURIComponent(DATA.sites[at].name);
  return number === null || number === undefined ? `#${name}` : `#${name}/${number}`;
}

/** Read the address; one that names nothing here is as none. */
export function readAddress() {
  const text = location.hash.slice(1);
  const cut = text.indexOf("/");
  let name = cut < 0 ? text : text.slice(0, cut);
  try {
    name = decodeURIComponent(name);
  } catch {
    name = "";
  }
  const at = DATA.sites.findIndex((one) => one.name === name);
  chosen.site = Math.max(at, 0);
  const number = at >= 0 && /^\d+$/.test(text.slice(cut + 1)) && cut >= 0 ? Number(text.slice(cut + 1)) : null;
  chosen.feature = number !== null && feature(number) ? number : null;
}

/** A link to a feature, or its number alone where it is not on this page. */
export function link(number) {
  if (feature(number)) return el("a", { href: address(number) }, String(number));
  return el("span", { class: "dim", title: "not among the features on this page" }, String(number));
}
