// The features of the run: a site's table at once, what is told of each feature when it is opened.

/** One site of the model: its table of features, and blocks that are read on demand. */
class Site {
  constructor(info, features, genes) {
    this.info = info;
    this.genes = genes; // symbols and ids, by the codes of lists of genes; null where the page has none
    this.key = info.key;
    this.features = features;
    this.rows = features.rows;
    this.numbers = Array.from({ length: features.rows }, (_, place) => features.column("feature")?.at(place) ?? place);
    this.places = new Map(this.numbers.map((number, place) => [number, place]));
    this.most = (features.column("frequency")?.numbers() ?? []).reduce((most, value) => (value > most ? value : most), 0);
    this.found = null; // significant terms of each feature, once they are read
    this.lists = null; // longer lists of genes, once they are read
  }

  /** Whether the page holds a block of this site, such as "cells" or "codes-3". */
  has(name) {
    return hasBlock(`${this.key}-${name}`);
  }

  block(name) {
    return openBlock(`${this.key}-${name}`);
  }

  column(name) {
    return this.features.column(name);
  }

  /** What a column says of a feature; null where it says nothing or is not there. */
  value(name, place) {
    return this.features.column(name)?.at(place) ?? null;
  }

  /** The place of a feature by its number; undefined where it is not on this page. */
  place(number) {
    return this.places.get(Number(number));
  }

  /** The column by which names are told on cells that did not choose them. */
  get auroc() {
    return this.column("auroc_shown") && !this.column("auroc_shown").numbers().every(Number.isNaN) ? "auroc_shown" : "auroc";
  }

  get heldOut() {
    return this.auroc === "auroc_shown";
  }
}

const sites = new Map(); // key: promise of a site

async function readSite(key, info) {
  const [features, genes] = await Promise.all([openBlock(`${key}-features`), hasBlock(`${key}-genes`) ? openBlock(`${key}-genes`) : null]);
  return new Site(info, features, genes);
}

/** A site by its key, read once. */
function openSite(key) {
  const info = INFO.sites.find((one) => one.key === key);
  if (!sites.has(key)) sites.set(key, readSite(key, info));
  return sites.get(key);
}

const FOUND_MOST = 40; // significant terms of a feature that the page lists for a search

/** Significant terms of all features: of feature i those from `offsets[i]` to `offsets[i + 1]`, the smallest q first. */
async function readFound(site) {
  if (site.found || !site.has("found")) return;
  const [block, terms] = await Promise.all([site.block("found"), site.has("terms") ? site.block("terms") : null]);
  const list = block.column("terms");
  const source = terms?.column("source");
  const libraries = new Map(); // database: which features have a significant term in it
  const mark = (name, place) => {
    if (!libraries.has(name)) libraries.set(name, new Uint8Array(site.rows));
    libraries.get(name)[place] = 1;
  };
  const libs = block.column("libs");
  for (let place = 0; place < site.rows; place += 1) {
    const [from, to] = (libs ?? list).range(place);
    for (let k = from; k < to; k += 1) {
      const name = libs ? site.info.databases?.[libs.of.at(k)]?.name : source?.at(list.of.at(k));
      if (known(name)) mark(name, place);
    }
  }
  const counts = Float64Array.from({ length: site.rows }, (_, place) => list.range(place)[1] - list.range(place)[0]);
  site.found = { terms, offsets: list.offsets, codes: list.of.stored, counts, libraries, best: block.column("best_q")?.numbers() ?? null };
}

/** The genes that the blocks of details list, more than those in the table: for a search. */
async function readLists(site, { between }) {
  if (site.lists) return;
  const offsets = new Uint32Array(site.rows + 1);
  const parts = [];
  let words = null;
  for (let group = 0; group * site.info.group < site.rows; group += 1) {
    if (!site.has(`detail-${group}`)) return;
    const block = await site.block(`detail-${group}`);
    const genes = block.column("genes.gene");
    const from = block.column("genes_from");
    if (!genes || !from) return;
    words = genes;
    parts.push(genes.codes());
    const first = group * site.info.group;
    for (let i = 0; i < block.rows; i += 1) offsets[first + i + 1] = offsets[first] + from.at(i + 1);
    if (group % 2) await between();
  }
  const codes = new Uint32Array(offsets[site.rows]);
  let at = 0;
  for (const part of parts) {
    codes.set(part, at);
    at += part.length;
  }
  site.lists = { offsets, codes, words };
}

/** All that is known of a feature beside its row in the table; null where the page does not hold it. */
async function openDetail(site, place) {
  const group = Math.floor(place / site.info.group);
  if (!site.has(`detail-${group}`)) return null;
  const [block, terms, cells] = await Promise.all([`detail-${group}`, "terms", "cells"].map((name) => (site.has(name) ? site.block(name) : null)));
  return { block, terms, cells, at: place - group * site.info.group };
}

/** The rows of one table of a feature's details as objects; null where the table was not made. */
function rowsOf(detail, name) {
  const from = detail?.block.column(`${name}_from`);
  if (!from) return null;
  const start = `${name}.`;
  const columns = detail.block.names.filter((one) => one.startsWith(start)).map((one) => [one.slice(start.length), detail.block.column(one)]);
  const rows = [];
  for (let i = from.at(detail.at); i < from.at(detail.at + 1); i += 1) {
    rows.push(Object.fromEntries(columns.map(([key, column]) => [key, column.at(i)])));
  }
  return rows;
}

/** A feature's terms with what the terms are called; null where no database was asked. */
function termsOf(detail) {
  const rows = rowsOf(detail, "terms");
  const told = detail?.terms;
  if (!rows || !told) return rows;
  const word = (name, code) => told.column(name)?.at(code) ?? null;
  return rows.map((row) => ({ ...row, code: row.term, label: word("label", row.term) ?? word("term", row.term), group: word("group", row.term),
    source: row.source ?? word("source", row.term), term: word("term", row.term) }));
}

/** A feature's genes in both rankings, with what the gene's own expression is and the score by cell. */
function genesOf(site, place, detail) {
  const rows = rowsOf(detail, "genes");
  if (!rows) return null;
  const from = detail.block.column("genes_from").at(detail.at);
  const codes = detail.block.column("genes.gene")?.codes();
  const expression = site.genes?.column("expression");
  const cells = site.value("cells", place);
  return rows.map((row, i) => ({ ...row, expression: row.expression ?? expression?.at(codes[from + i]) ?? null,
    mean: row.mean ?? (known(row.score) && cells ? row.score / cells : null) }));
}

/** The cells in which a feature is highest, by name. */
function cellsOf(detail) {
  const rows = rowsOf(detail, "cells");
  const names = detail?.cells?.column("cell");
  const inFile = (row) => (known(row.row) ? `row ${num(row.row)} of the file` : null);
  return rows?.map((row) => ({ ...row, name: row.name ?? (known(row.place) ? names?.at(row.place) : null) ?? inFile(row) })) ?? null;
}

/** What a list of a feature holds: of its row, else of its details. */
function listOf(site, place, { detail, name }) {
  return site.value(name, place) ?? detail?.block.column(name)?.at(detail.at) ?? null;
}

/** Features near a feature: [{ feature, score }], null where that was not asked. */
function nearOf(site, place, { detail, name, score }) {
  const rows = rowsOf(detail, name);
  if (rows) return rows.map((row) => ({ feature: row.feature, score: row[score] }));
  const numbers = site.value(name, place);
  return numbers?.map((feature, i) => ({ feature, score: site.value(`${name}_${score}`, place)?.[i] })) ?? null;
}

/** A text of a feature: from its row, else from its details. */
function textOf(site, place, { detail, name }) {
  return site.value(name, place) ?? detail?.block.column(name)?.at(detail.at) ?? null;
}

/** A database by its title. */
function titleOf(site, name) {
  if (["kind", "cells", "genes"].includes(name)) return `its ${name}`;
  return (site.info.databases ?? []).find((one) => one.name === name)?.title ?? name;
}

/** What a feature is called, and how sure that is; its first genes where it has no name. */
function nameOf(site, place) {
  const name = site.value("name", place);
  return name === null ? null : { text: name, confidence: site.value("name_confidence", place) };
}

function firstGenes(site, place, most) {
  return (site.value("top_genes", place) ?? []).slice(0, most);
}
