// The columns of the list: every column of the table of features is one, and a few are put together of several.

const USUAL = ["feature", "name", "frequency", "kind", "auroc", "found", "stability"];
const SPARED = ["stability", "kind", "frequency", "found"]; // left out first where there is no room
const SHARES = new Set(["frequency", "cell_frequency", "by_gene", "by_cell", "neither"]);
const BETWEEN = 0.8; // letters between two columns; the style sheet has the same
const NUMBERED = new Set(["feature", "near", "together", "module"]); // names that are numbers
const WHOLE = new Set(["name_reason", "explanation"]); // texts that are read in a feature, not in a row
const PLAIN_TITLES = {
  feature: "No.", frequency: "Fires in", kind: "Kind", cell_type: "Cell type", auroc: "Type, AUROC", found: "Terms", stability: "Stability",
  cell_frequency: "Cells", by_gene: "By gene", by_cell: "By cell", neither: "By neither", top_genes: "Genes", top_genes_raw: "Genes by sum",
  histogram: "Strength", module: "Module", near: "Nearest", together: "Together", alive: "Fires", mean: "Mean", max: "Highest",
};
const byLocale = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const ranks = new WeakMap(); // column of text: the place of each word in the order of the alphabet

/** How one column is called and explained. */
function toldOf(site, key) {
  const given = own(site.info.columns, key) ?? {};
  return { title: own(PLAIN_TITLES, key) ?? given.title ?? key.replaceAll("_", " "), what: given.what ?? null, digits: given.digits ?? 3 };
}

/** How the numbers of a column are written. */
function writerOf(site, key) {
  if (SHARES.has(key)) return percent;
  if (/^(?:p|q)(?:_|$)|_(?:p|q)$/.test(key)) return chance;
  if (/^(?:auroc|stability|name_confidence|explanation_s)/.test(key)) return fixed;
  if (NUMBERED.has(key)) return String;
  const { digits } = toldOf(site, key);
  return (value) => num(value, Number.isInteger(digits) ? Math.max(1, digits) : 3);
}

/** Each word's place in the order of the alphabet, so that rows are sorted by numbers. */
function ranksOf(column) {
  if (!ranks.has(column)) {
    const order = Array.from(column.words.keys()).sort((a, b) => byLocale.compare(column.words[a], column.words[b]));
    const places = new Float64Array(order.length);
    order.forEach((code, rank) => { places[code] = rank; });
    ranks.set(column, places);
  }
  return ranks.get(column);
}

/** What a column is sorted by: a number for each feature, NaN where there is none. */
function sortValues(site, key) {
  if (key === "name") return nameValues(site);
  if (key === "found") return foundValues(site);
  const column = site.column(key === "auroc" ? site.auroc : key);
  if (!column) return new Float64Array(site.rows).fill(NaN);
  if (column.kind === "number") return column.numbers();
  if (column.kind === "bool") return Float64Array.from({ length: site.rows }, (_, i) => (column.at(i) === null ? NaN : Number(column.at(i))));
  if (column.kind === "text") return textValues(column);
  if (key === "histogram") return Float64Array.from({ length: site.rows }, (_, i) => typical(column.at(i)));
  const of = column.of;
  const first = of.kind === "text" ? (k) => (of.codes()[k] === of.none ? NaN : ranksOf(of)[of.codes()[k]]) : (k) => of.at(k) ?? NaN;
  return Float64Array.from({ length: site.rows }, (_, i) => (column.offsets[i] < column.offsets[i + 1] ? first(column.offsets[i]) : NaN));
}

function textValues(column) {
  const [places, codes] = [ranksOf(column), column.codes()];
  return Float64Array.from({ length: column.length }, (_, i) => (codes[i] === column.none ? NaN : places[codes[i]]));
}

/** The middle of a histogram: the mean of its bins. */
function typical(bins) {
  const total = bins.reduce((sum, count) => sum + (count ?? 0), 0);
  return total ? bins.reduce((sum, count, i) => sum + i * (count ?? 0), 0) / total : NaN;
}

function nameValues(site) {
  if (site.column("name_confidence")) return site.column("name_confidence").numbers();
  return site.column("name") ? textValues(site.column("name")) : sortValues(site, "top_genes");
}

/** Smallest q, or how many terms: the more the better. */
function foundValues(site) {
  if (!site.found) return new Float64Array(site.rows).fill(NaN);
  const { best, counts } = site.found;
  return Float64Array.from({ length: site.rows }, (_, i) => (best ? best[i] : counts[i] ? -counts[i] : NaN));
}

/** Whether the first click on a column puts the largest first. */
function largestFirst(site, key) {
  if (key === "name") return Boolean(site.column("name_confidence"));
  if (key === "found" || NUMBERED.has(key) || writerOf(site, key) === chance) return false;
  const column = site.column(key === "auroc" ? site.auroc : key);
  return column !== null && column !== undefined && column.kind !== "text" && !(column.kind === "list" && column.of.kind === "text");
}

function genesLine(site, place, most) {
  const genes = firstGenes(site, place, most);
  return genes.length ? joined(genes.map((gene) => named(gene, {}, 24))) : [];
}

/** What it is called with how sure that is, and its genes; `reason` stands in the place of the genes in a search. */
function nameCell(site, place, reason) {
  const name = nameOf(site, place);
  const genes = genesLine(site, place, 6);
  const silent = site.value("alive", place) === false ? dim("silent") : dim("no gene");
  if (name === null) return [el("span", { class: "line" }, genes.length ? genes : silent), el("span", { class: "line below" }, reason ?? "")];
  const how = { class: name.confidence > 0.5 ? "sure" : "sure dim", title: "Confidence of the name, from 0 to 1" };
  const sure = known(name.confidence) ? el("span", how, fixed(name.confidence)) : null;
  return [el("span", { class: "line" }, sure, named(name.text, {}, 90)), el("span", { class: "line below" }, reason ?? genes)];
}

function aurocCell(site, place) {
  if (!site.column("auroc")) return dim(NOT_RUN);
  const [shown, on, type] = [site.value("auroc_shown", place), site.value("auroc", place), site.value("cell_type", place)];
  const told = known(shown) || known(on) ? both(shown, on, fixed) : dim("–");
  return [el("span", { class: "line" }, type === null ? dim("–") : named(type, {}, 40)), el("span", { class: "line below" }, told)];
}

function foundCell(site, place) {
  if (!site.found) return dim(site.has("found") ? "…" : NOT_RUN);
  const { best, counts } = site.found;
  if (!counts[place]) return [dim("none"), best && known(best[place]) ? below(`q ${chance(best[place])}`) : null];
  return [termCount(counts[place]), best ? below(`q ${chance(best[place])}`) : null];
}

function termCount(count) {
  return count >= FOUND_MOST ? `${FOUND_MOST}+` : String(count);
}

/** A histogram as small as a word. */
function sparkline(bins) {
  const first = bins.findIndex((count) => count > 0);
  if (first < 0) return dim("–");
  const last = bins.findLastIndex((count) => count > 0);
  const most = Math.max(...bins);
  const step = 84 / (last - first + 1);
  return svg("svg", { class: "spark", viewBox: "0 0 84 24", "aria-hidden": "true" }, bins.slice(first, last + 1).map((count, i) => {
    const tall = count ? Math.max(1, (24 * count) / most) : 0;
    return svg("rect", { x: i * step, y: 24 - tall, width: Math.max(0.8, step - 1), height: tall });
  }));
}

/** What stands in one cell of the list. */
function cellOf(site, key, place, reason) {
  if (key === "feature") return el("a", { href: addressOf({ feature: site.numbers[place], view: "list" }), tabindex: -1 }, String(site.numbers[place]));
  if (key === "name") return nameCell(site, place, reason);
  if (key === "auroc") return aurocCell(site, place);
  if (key === "found") return foundCell(site, place);
  const column = site.column(key);
  const value = column.at(place);
  if (value === null) return dim("–");
  if (column.kind === "bool") return value ? "yes" : "no";
  if (column.kind === "text") return named(value, {}, 60);
  const write = writerOf(site, key);
  if (column.kind === "list") {
    if (key === "histogram") return sparkline(value);
    return value.length ? joined(value.slice(0, 4).map((one) => (typeof one === "number" ? write(one) : named(one, {}, 24)))) : dim("–");
  }
  const base = key.endsWith("_shown") ? site.value(key.slice(0, -6), place) : null;
  return [base === null ? write(value) : both(value, base, write), key === "frequency" ? bar(value, site.most) : null];
}

/** Words for what stands beside the number, for the head of a column. */
function controlOf(site, key) {
  const again = site.info.controls?.follow?.["another seed"];
  if (key === "auroc" && site.column("auroc")) {
    return site.heldOut ? "For its best cell type: on cells that did not choose it (on those that did)"
      : "For its best cell type, on the cells that chose it: it reads better than it is";
  }
  if (key === "stability" && again) {
    const shares_ = [again["found again"], again["found again by chance"] ?? 0].map(percent);
    return `Largest cosine with a feature of another seed: ${shares_[0]} of features are found again, ${shares_[1]} by chance`;
  }
  if (key === "found") return `Terms at q ≤ ${site.info.fdr ?? "the rate"}, where q counts what genes alike give by chance; below it the smallest q`;
  if (key === "name") return "How well the name is supported, from 0 to 1; what it is called; its first genes by specificity";
  if (key === "frequency") return "Share of all rows (a gene of a cell is a row)";
  return null;
}

/** All columns that a reader can choose, in the order of the table, the usual ones first. */
function offered(site) {
  const others = site.features.names.filter((key) => !USUAL.includes(key) && !WHOLE.has(key) && !(key === "auroc_shown" && site.column("auroc")));
  const first = USUAL.filter((key) => key === "name" || (key === "found" ? site.has("found") : site.column(key)));
  return [...first, ...others].map((key) => columnOf(site, key));
}

function columnOf(site, key) {
  const column = site.column(key === "found" || key === "name" ? "feature" : key);
  const words = key === "name" || key === "auroc" || column?.kind === "text" || (column?.kind === "list" && key !== "histogram");
  const told = key === "name" && !site.column("name") ? { title: "Genes", what: null } : toldOf(site, key);
  const title = key === "name" && site.column("name") ? "Name and genes" : told.title;
  return { key, title, what: controlOf(site, key) ?? told.what, words, least: leastOf(key, { words, column, title }) };
}

/** The width of a column in letters of the page's size; that of names grows. */
function leastOf(key, { words, column, title }) {
  const fixedly = own({ name: 12.4, feature: 4, kind: 7.2, auroc: 9, found: 5 }, key);
  if (fixedly) return fixedly;
  if (column?.kind === "list" && words) return 14;
  return words ? 9 : Math.max(5.4, Math.min(9, 1.6 + 0.56 * title.length));
}

function widthOf({ key, least }) {
  return key === "name" ? `minmax(${least}rem, 1fr)` : `${least}rem`;
}

/** How wide columns are at least, and what is between them and around them. */
function leastWidth(columns) {
  return columns.reduce((sum, { least }) => sum + least + BETWEEN, 0.6);
}

/** The columns that are shown: those that the address names, else the usual ones for which there is room. */
function shownColumns(site, room_ = Infinity) {
  const all = offered(site);
  const asked_ = chosen.cols.split(",").filter(Boolean);
  if (asked_.length) return all.filter(({ key }) => ["feature", "name", ...asked_].includes(key));
  const usual = all.filter(({ key }) => USUAL.includes(key));
  let wide = leastWidth(usual);
  const spared = new Set();
  for (const key of SPARED) {
    const column = usual.find((one) => one.key === key);
    if (!column || wide <= room_) continue;
    spared.add(key);
    wide -= column.least + BETWEEN;
  }
  return usual.filter(({ key }) => !spared.has(key));
}
