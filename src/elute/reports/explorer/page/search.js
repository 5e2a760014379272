// The search: words of dictionaries are looked at once a keystroke, and features by the numbers of their words.

const TOKENS = 6; // words of a search that are looked at
const LEAST_ID = 4; // letters of an id from which on ids are looked at
const REMEMBERED = 24; // searches whose answers are kept
const SCORES = { number: 0, gene: 10, name: 100, prefix: 200, type: 400, term: 600, part: 1200, other: 2000 };
const indices = new WeakMap(); // site: where it is looked

/** Where a search looks: lists and columns of words, and how much a word in each counts. */
function placesOf(site) {
  const places = [];
  const [words, ids] = [site.genes?.column("word") ?? null, site.genes?.column("gene") ?? null];
  const symbols = (column) => (words && ids ? { words, ids, rows: true } : { words: column });
  for (const [name, more] of [["top_genes", 0], ["top_genes_raw", 1000]]) {
    const list = site.column(name);
    if (list?.kind === "list" && list.of.kind === "text") {
      places.push({ what: "gene", ...symbols(list.of), offsets: list.offsets, codes: list.of.codes(), more, raw: more > 0 });
    }
  }
  if (site.lists) places.push({ what: "gene", ...symbols(site.lists.words), offsets: site.lists.offsets, codes: site.lists.codes, more: 20, deep: true });
  for (const name of site.features.names) {
    const column = site.column(name);
    if (column.kind !== "text" || name === "kind" || name === "name_source") continue;
    const what = name === "name" ? "name" : name === "cell_type" ? "type" : "other";
    places.push({ what, name, words: column, codes: column.codes(), none: column.none });
  }
  if (site.found?.terms) {
    const labels = site.found.terms.column("label") ?? site.found.terms.column("term");
    places.push({ what: "term", words: labels, ids: site.found.terms.column("term"), offsets: site.found.offsets, codes: site.found.codes, rows: true });
  }
  return places;
}

/** Look anew when more has been read. */
function indexOf(site) {
  const state = `${Boolean(site.found)}/${Boolean(site.lists)}`;
  if (indices.get(site)?.state !== state) indices.set(site, { state, places: placesOf(site), answers: new Map() });
  return indices.get(site);
}

/** How each word of a dictionary answers: 1 it is the text, 2 it begins with it, 3 it holds it, 0 not at all. */
function wordHits(words, text) {
  const lower = words.lower;
  const hits = new Uint8Array(lower.length);
  let some = false;
  for (let i = 0; i < lower.length; i += 1) {
    const at = lower[i].indexOf(text);
    if (at < 0) continue;
    hits[i] = at > 0 ? 3 : lower[i].length === text.length ? 1 : 2;
    some = true;
  }
  return some ? hits : null;
}

/** The same for genes and terms, which have a name and an id, and lie by row. */
function rowHits(place, text) {
  const asId = place.ids && text.length >= LEAST_ID && /\d/.test(text);
  const byWord = [place.words, asId ? place.ids : null].filter(Boolean).map((column) => ({ codes: column.codes(), hits: wordHits(column, text) }));
  if (byWord.every(({ hits }) => !hits)) return null;
  const hits = new Uint8Array(place.words.length);
  for (let row = 0; row < hits.length; row += 1) {
    for (const { codes, hits: found } of byWord) hits[row] ||= found?.[codes[row]] ?? 0;
  }
  return hits;
}

function scoreOf(place, hit, rank) {
  if (place.what === "gene") return SCORES[["", "gene", "prefix", "part"][hit]] + place.more + rank;
  if (place.what === "term") return SCORES.term + rank + hit;
  return SCORES[place.what] + hit;
}

/** The best answer of each feature to one text: a score (smaller is better, infinite is none) and where it stands. */
function answer(site, text) {
  const { places } = indexOf(site);
  const scores = new Float32Array(site.rows).fill(Infinity);
  const where = new Uint8Array(site.rows);
  const codes = new Uint32Array(site.rows);
  const ranks = new Uint16Array(site.rows);
  places.forEach((place, at) => {
    const hits = place.rows ? rowHits(place, text) : wordHits(place.words, text);
    if (!hits) return;
    for (let row = 0; row < site.rows; row += 1) {
      const from = place.offsets ? place.offsets[row] : row;
      const to = place.offsets ? place.offsets[row + 1] : row + 1;
      for (let k = from; k < to; k += 1) {
        const hit = hits[place.codes[k]];
        if (!hit) continue;
        const score = scoreOf(place, hit, k - from);
        if (score >= scores[row]) continue;
        [scores[row], where[row], codes[row], ranks[row]] = [score, at, place.codes[k], k - from];
      }
    }
  });
  const number = /^#?(\d{1,9})$/.exec(text);
  const mine = number ? site.place(number[1]) : undefined;
  if (mine !== undefined) [scores[mine], where[mine]] = [SCORES.number, 255];
  return { text, scores, where, codes, ranks };
}

function answerOnce(site, text) {
  const { answers } = indexOf(site);
  if (!answers.has(text)) {
    if (answers.size >= REMEMBERED) answers.delete(answers.keys().next().value);
    answers.set(text, answer(site, text));
  }
  return answers.get(text);
}

/** The words of a search: as one text, and where it has several, each of them. */
function tokensOf(query) {
  const whole = query.trim().toLowerCase().replace(/\s+/g, " ");
  const parts = [...new Set(whole.split(/[\s,;]+/).filter(Boolean))].slice(0, TOKENS);
  return { whole, parts: parts.length > 1 ? parts : [] };
}

/** What each feature has of a search: scores, and `why(place)` in words; null where nothing is searched for. */
function searched(site, query) {
  const { whole, parts } = tokensOf(query);
  if (!whole) return null;
  const all = answerOnce(site, whole);
  const each = parts.map((part) => answerOnce(site, part));
  const scores = Float32Array.from(all.scores);
  if (each.length) {
    for (let row = 0; row < site.rows; row += 1) {
      if (scores[row] < Infinity) continue;
      scores[row] = each.reduce((sum, one) => sum + one.scores[row], 5000);
    }
  }
  const why = (row) => (all.scores[row] < Infinity ? reason(site, all, row) : joined(each.map((one) => reason(site, one, row)), " · "));
  return { scores, why };
}

/** A text with the part that was searched for marked. */
function marked(text, part) {
  const short = shortened(text, 70);
  const at = short.toLowerCase().indexOf(part);
  if (at < 0 || short.toLowerCase().length !== short.length) return el("mark", {}, named(text, {}, 70));
  return el("bdi", { class: "name" }, short.slice(0, at), el("mark", {}, short.slice(at, at + part.length)), short.slice(at + part.length));
}

/** The id of a gene, where it is the id that was searched for. */
function idOf(place, code, text) {
  const id = place.words.words[code].toLowerCase().includes(text) ? null : place.ids?.at(code) ?? null;
  return id === null ? null : [" (", marked(id, text), ")"];
}

/** Why a feature was found, in words. */
function reason(site, { text, where, codes, ranks }, row) {
  if (where[row] === 255) return "its number";
  const place = indexOf(site).places[where[row]];
  const rank = ranks[row] + 1;
  if (place.what === "gene") {
    const at = place.deep ? ", further down" : `, no. ${rank}${place.raw ? " by sum" : ""}`;
    return ["gene ", marked(place.words.words[codes[row]], text), idOf(place, codes[row], text), dim(at)];
  }
  if (place.what === "term") {
    const label = place.words.at(codes[row]) ?? "";
    const found = label.toLowerCase().includes(text) ? marked(label, text) : [named(label, {}, 60), " ", marked(place.ids?.at(codes[row]) ?? "", text)];
    const source = site.found.terms.column("source")?.at(codes[row]);
    return ["term ", found, source ? dim(", ", shortened(titleOf(site, source), 40)) : null];
  }
  const title = { name: "name", type: "cell type" }[place.what] ?? toldOf(site, place.name).title.toLowerCase();
  return [`${title} `, marked(place.words.words[codes[row]], text)];
}
