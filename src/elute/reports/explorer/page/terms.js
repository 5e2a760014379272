// What databases say of a feature's genes: effect, chance of any genes and of like genes, q, and q on other cells.

const BEST_TERMS = 12; // in the chart
const OVERLAP = 12; // genes of an overlap before the rest is asked for
const TERM_HEADS = ["source", "term", "label", "group", "overlap", "list_size", "term_size", "expected", "odds", "odds_low", "odds_high", "p", "null_p", "q", "q_plain",
  "q_shown", "genes"];

/** 2: significant against the null. 1: only a plain test finds it. 0: neither. */
function levelOf(site, row) {
  if (known(row.q) && row.q <= site.info.fdr) return 2;
  return known(row.q_plain) && row.q_plain <= site.info.fdr ? 1 : 0;
}

function termsTsv(rows) {
  const heads = TERM_HEADS.filter((key) => rows.some((row) => known(row[key])));
  return { heads, rows: rows.map((row) => heads.map((key) => row[key])) };
}

function oddsText(value) {
  return value === Infinity ? "∞" : num(value);
}

function geneNames(genes, most = OVERLAP) {
  const names = genes.map((gene) => named(gene, { class: "name gene" }, 40));
  if (names.length <= most) return joined(names, " ");
  return [joined(names.slice(0, most), " "), " ", el("details", { class: "more" }, el("summary", {}, `and ${names.length - most} more`), joined(names.slice(most), " "))];
}

/** One term: its numbers, and below them the genes in common. */
function termRow(site, row) {
  const level = levelOf(site, row);
  const cell = (name, ...content) => el("td", { class: "n", "data-label": name }, content);
  const ends = known(row.odds_low) && known(row.odds_high) ? below(`${oddsText(row.odds_low)} to ${oddsText(row.odds_high)}`) : null;
  const numbers = el("tr", {},
    el("th", { scope: "row" }, named(row.label, { class: "name term" }, 160), below(named(row.term, {}, 60), row.group ? [" · ", named(row.group, {}, 40)] : null,
      row.folded ? el("span", { title: "A narrower term with the same genes stands here, too" }, " · folded") : null)),
    cell("genes", `${num(row.overlap)} of ${num(row.list_size)}`, below(`${num(row.expected, 2)} expected`)),
    cell("odds", held(row.odds, oddsText), ends),
    cell("p any genes", held(row.p, chance)),
    cell("p like genes", held(row.null_p, chance)),
    cell("q", held(row.q, chance), level === 1 ? below(el("span", { class: "flag" }, "only by a plain test: ", chance(row.q_plain))) : null),
    cell("q others", held(row.q_shown, chance, level === 2 ? NOT_RUN : "–")));
  const genes = row.genes?.length ? el("tr", {}, el("td", { class: "detail", colspan: 7 }, geneNames(row.genes))) : null;
  return el("tbody", { class: ["", "doubt", "passes"][level] }, numbers, genes);
}

function termHeads(site) {
  const others = site.heldOut ? "with genes chosen on the held-out cells" : "with genes chosen on other cells";
  return [["Term", null], ["Genes", "In common, of the feature’s list; and how many chance gives"], ["Odds", "Odds ratio, and its interval where it is known"],
    ["p any genes", "Against any genes of the background"], ["p like genes", "Among genes alike in expression, detection and number of annotations"],
    ["q", "Of the larger p of the two, over all features and all terms of this database"], ["q others", `The same term ${others}`]];
}

/** What the run as a whole gives in this database, and what chance gives: beside it stands any one feature's term. */
function databaseControl(database) {
  if (!known(database?.significant)) return null;
  const chanceOf = database.null && known(database.null.mean)
    ? `; lists of like genes give ${num(database.null.mean)} (${num(database.null.low)} to ${num(database.null.high)})` : "; the null was not run";
  const plainOf = known(database.plain) ? `; a plain test would say ${num(database.plain)}` : "";
  const controls = Object.entries(database.controls ?? {}).filter(([, told]) => known(told?.significant)).map(([name, told]) => `${name} ${num(told.significant)}`);
  const further = controls.length ? `; ${controls.join(", ")}` : "";
  return `${num(database.significant)} of ${num(database.features)} features have a significant term here${chanceOf}${plainOf}${further}.`;
}

function termTable(site, place, database, rows) {
  const title = `Terms of ${database.title ?? database.name}`;
  const made = el("div", { class: "wide", tabindex: 0, role: "group", "aria-label": title }, el("table", { class: "terms cards" },
    el("caption", {}, title),
    el("thead", {}, el("tr", {}, termHeads(site).map(([text, what], i) => el("th", { scope: "col", title: what, class: i ? "n" : null }, text)))),
    rows.map((row) => termRow(site, row))));
  return [el("h4", {}, named(database.title ?? database.name)), note(databaseControl(database)),
    savableTable(made, { name: `terms-${database.name}-${site.numbers[place]}`, title: `Terms of ${database.title ?? database.name}, best first`, tsv: () => termsTsv(rows) })];
}

function note(...content) {
  return content[0] ? el("p", { class: "note" }, content) : null;
}

/** All databases in the order of reading: those that found something, those that did not, those that were not asked. */
function termSections(site, place, detail) {
  const rows = termsOf(detail);
  const databases = site.info.databases ?? [];
  if (!rows) return [el("p", { class: "dim" }, NOT_RUN)];
  const bySource = new Map();
  for (const row of rows) bySource.set(row.source, [...(bySource.get(row.source) ?? []), row]);
  const order = (a, b) => levelOf(site, b) - levelOf(site, a) || (a.q ?? 2) - (b.q ?? 2) || (a.p ?? 2) - (b.p ?? 2);
  for (const mine of bySource.values()) mine.sort(order);
  const all = [...bySource].map(([name, mine]) => [databases.find((one) => one.name === name) ?? { name }, mine]).sort((a, b) => order(a[1][0], b[1][0]));
  const names = (list) => joined(list.map((one) => named(one.title ?? one.name)));
  const run = databases.filter((one) => one.status === "run" && !bySource.has(one.name));
  const absent = databases.filter((one) => one.status !== "run");
  return [
    oddsChart(site, place, [...rows].sort(order).slice(0, BEST_TERMS)),
    ...all.flatMap(([database, mine]) => termTable(site, place, database, mine)),
    run.length ? note("Asked, and no term came near: ", names(run), ".") : null,
    absent.length ? note("Not run, so nothing is known: ", names(absent), ".") : null,
  ];
}
