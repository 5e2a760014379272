// The data of the page: an index that is read at once, chunks of features that are read when one of theirs is opened.

/** What is chosen. `sort` is null while the page decides: by match in a search, else by confidence or by q. */
export const chosen = { feature: null, query: "", source: "", show: "", sort: null, descending: false, page: 0 };

export let INDEX = null;
let places = new Map(); // feature: its place in the index
const cache = new Map();

async function read(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

export async function readIndex() {
  INDEX = await read("index");
  places = new Map(INDEX.feature.map((number, i) => [number, i]));
  INDEX.lower = {
    symbols: INDEX.symbols.map((text) => text.toLowerCase()),
    names: INDEX.name.map((text) => (text ?? "").toLowerCase()),
    labels: INDEX.sources.map((source) => (source.labels ?? []).map((text, i) => `${text} ${source.terms[i]}`.toLowerCase())),
  };
}

export function placeOf(number) {
  return places.get(number);
}

/** The rows as objects, a list a feature: data lie by column, with how many rows each feature has. */
function byFeature(columns) {
  const names = Object.keys(columns).filter((name) => name !== "n" && name !== "stored");
  let at = 0;
  return columns.n.map((count) => {
    const rows = Array.from({ length: count }, (_, i) => Object.fromEntries(names.map((name) => [name, columns[name][at + i]])));
    at += count;
    return rows;
  });
}

function chunk(number) {
  if (!cache.has(number)) {
    cache.set(number, read(`c${number}`).then((told) => {
      for (const columns of Object.values(told.sources)) columns.rows = byFeature(columns);
      return told;
    }));
  }
  return cache.get(number);
}

/** The picture of a feature's interactions, as the text of an SVG file; null where none was drawn. */
export async function networkOf(number) {
  if (!INDEX.drawn.includes(number)) return null;
  if (!cache.has("networks")) cache.set("networks", read("networks"));
  return (await cache.get("networks"))[number];
}

/** All that is known of the feature at a place of the index. */
export async function details(place) {
  const told = await chunk(Math.floor(place / INDEX.chunk));
  const i = place % INDEX.chunk;
  const sources = INDEX.sources.map((source, at) => {
    const mine = told.sources[source.name];
    return { ...source, at, rows: mine?.rows[i] ?? [], stored: mine?.stored[i] ?? 0, tree: told.trees[source.name]?.nodes[i] ?? [], caption: told.trees[source.name]?.captions[i] };
  });
  const network = told.network && Object.fromEntries(Object.entries(told.network).map(([name, values]) => [name, values[i]]));
  return { sources, network: network && network.p !== null ? network : null };
}

/** The symbol of a gene of an overlap: a place in the feature's own list, or −1 − a place among all genes. */
export function symbolOf(place, gene) {
  return INDEX.symbols[gene >= 0 ? INDEX.lists[place][gene] : -1 - gene];
}

export function label(source, term) {
  return INDEX.sources[source].labels[term];
}

/** How well each feature fits a search: smaller is better; those that do not fit at all are left out. */
export function fits(query) {
  const all = INDEX.feature.map((_, place) => ({ place, at: 0 }));
  if (!query) return all;
  const number = query.replace(/^#/, "");
  const genes = INDEX.lower.symbols.map((text) => (text === query ? 1 : text.startsWith(query) ? 2 : text.includes(query) ? 3 : 0));
  const terms = INDEX.lower.labels.map((texts) => texts.map((text) => text.includes(query)));
  return all.filter((item) => {
    const at = fit(item.place, { query, number, genes, terms });
    Object.assign(item, at ?? {});
    return at !== null;
  });
}

function fit(place, { query, number, genes, terms }) {
  if (number === String(INDEX.feature[place])) return { at: -1 };
  let best = INDEX.lower.names[place].includes(query) ? { at: 100 } : null;
  INDEX.lists[place].forEach((gene, i) => {
    const at = genes[gene] && [0, 0, 200, 1000][genes[gene]] + i;
    if (genes[gene] && !(best?.at <= at)) best = { at, gene };
  });
  if (best && best.at < 400) return best;
  const found = INDEX.terms_[place].findIndex((term, i) => terms[INDEX.sources_[place][i]][term]);
  if (found >= 0) return { at: 400 + found, term: [INDEX.sources_[place][found], INDEX.terms_[place][found]] };
  return best;
}

/** Whether a feature is among those that are shown. */
function passes(place) {
  if (chosen.source !== "" && !INDEX.sources_[place].includes(Number(chosen.source))) return false;
  if (chosen.show === "named") return INDEX.name[place] !== null;
  if (chosen.show === "again") return INDEX.again[place] === 2;
  if (chosen.show === "found") return INDEX.terms_[place].length > 0;
  if (chosen.show === "nothing") return INDEX.terms_[place].length === 0;
  return true;
}

export function sortKey() {
  return chosen.sort ?? (chosen.query.trim() ? "match" : INDEX.confidence.some((value) => value !== null) ? "confidence" : "q");
}

/** The features that are shown, in their order. */
export function matching() {
  const found = fits(chosen.query.trim().toLowerCase()).filter((item) => passes(item.place));
  const key = sortKey();
  const down = chosen.sort === null ? key === "confidence" : chosen.descending;
  const of = (item) => (key === "match" ? item.at : key === "name" ? INDEX.lower.names[item.place] || null : INDEX[key][item.place]);
  const tie = (a, b) => (INDEX.q[a.place] ?? 2) - (INDEX.q[b.place] ?? 2) || a.place - b.place;
  return found.sort((a, b) => {
    const [x, y] = [of(a), of(b)];
    if (x === null || y === null) return (x === null) - (y === null) || tie(a, b);
    return (down ? -1 : 1) * (typeof x === "string" ? x.localeCompare(y) : x - y) || tie(a, b);
  });
}
