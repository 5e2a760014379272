// One feature: what it is called and how sure that is, what it fires on, each number beside its control.

const GENES_SHOWN = 20;
const LEVELS_SHOWN = 10;
const MEMBERS = 24;
const HOW_GENES = "By specificity: cells’ activation with the gene’s expression, against independence. By plain sum: what is expressed everywhere comes first.";

/** A link to a feature with what it is called; its number alone where it is not on this page. */
function featureLink(site, number, { full = false } = {}) {
  const place = site.place(number);
  if (place === undefined) return el("span", { class: "dim", title: "not among the features on this page" }, String(number));
  const name = nameOf(site, place)?.text ?? firstGenes(site, place, 3).join(", ");
  return el("a", { href: addressOf({ feature: number, ...(site.key === chosen.site ? {} : { site: site.key }) }), title: shortened(name, 200) },
    String(number), full && name ? [" ", named(name, { title: null }, 40)] : null);
}

/** How much of its variance is told by which gene the row is, by which cell, and by neither alone. */
function shares(site, place) {
  const parts = [["by gene", "s-gene", "by_gene"], ["by cell", "s-cell", "by_cell"], ["by neither alone", "s-neither", "neither"]]
    .map(([text, kind, key]) => [text, kind, site.value(key, place)]);
  if (parts.every(([, , value]) => !known(value))) return absent();
  return el("div", {},
    el("div", { class: "shares", "aria-hidden": "true" }, parts.map(([, kind, value]) => el("i", { class: kind, "--share": `${100 * Math.max(0, Math.min(1, value ?? 0))}%` }))),
    el("div", { class: "keys" }, parts.map(([text, kind, value]) => el("span", { class: `key ${kind}` }, `${text} ${percent(value)}`))));
}

const GENE_HEADS = [["Gene", "gene"], ["Rank", "rank"], ["By sum", "rank_raw"], ["z, held out", "z_shown"], ["z, chosen", "z"], ["z of tokens", "token_z"],
  ["Score", "score"], ["Mean", "mean"], ["Expression", "expression"]];

function genesTable(all) {
  const heads = GENE_HEADS.filter(([, key]) => all.some((row) => known(row[key])));
  return table("Genes, both rankings", heads.map(([text], i) => ({ text, n: i > 0 })),
    all.map((row) => heads.map(([, key], i) => (i ? held(row[key], num, "–") : named(row[key])))));
}

/** Both rankings: the plain sum alone lists what is expressed everywhere. */
function genesSection(site, place, detail) {
  const all = genesOf(site, place, detail);
  if (!all) return [absent()];
  if (!all.length) return [el("p", { class: "dim" }, "none")];
  const ranked = (key) => all.filter((gene) => known(gene[key])).sort((a, b) => a[key] - b[key]);
  const [specific, raw] = [ranked("rank"), ranked("rank_raw")];
  const copy = (rows, text) => (rows.length ? el("button", { type: "button", "data-copy": rows.map((row) => row.gene).join("\n") }, text) : null);
  const chart = (rows, heading, told) => (rows.length
    ? el("div", {}, el("h4", {}, heading), genesChart(site, place, { rows: rows.slice(0, GENES_SHOWN), ...told })) : null);
  return [
    el("p", { class: "ways" }, copy(specific, `Copy ${specific.length} specific genes`), copy(raw, `Copy ${raw.length} by sum`),
      el("span", { class: "dim", role: "status", id: "copied" })),
    el("div", { class: "charts" }, chart(specific, "By specificity", { title: "genes by specificity", name: "genes" }),
      chart(raw, "By plain sum", { title: "genes by plain sum", name: "genes-raw" })),
    lazily("Table: genes", () => genesTable(all)),
  ];
}

/** What is drawn when it is asked for. */
function lazily(title, draw) {
  const made = el("details", { class: "lazy", toggle: () => { if (made.open && made.childElementCount < 2) made.append(draw()); } }, el("summary", {}, title));
  return made;
}

/** Each column of the cells: AUROC by level, the donors of its best level as points. */
function groupsSection(site, place, detail) {
  const all = rowsOf(detail, "groups");
  if (!all) return [absent()];
  if (!all.length) return [el("p", { class: "dim" }, "No column of the cells has levels to compare.")];
  const dots = rowsOf(detail, "donors") ?? [];
  return [...new Set(all.map((row) => row.column))].flatMap((column) => {
    const title = column === "label" ? "cell type" : column;
    const far = (row) => Math.abs((row.auroc ?? 0.5) - 0.5);
    const mine = all.filter((row) => row.column === column).sort((a, b) => far(b) - far(a));
    const points = dots.filter((row) => row.column === column);
    const level = points.some((row) => row.level === mine[0].level) ? mine[0].level : points[0]?.level;
    const drawn = points.filter((row) => row.level === level).slice(0, 40);
    return [el("h4", {}, named(title)), el("div", { class: "charts" }, aurocChart(site, place, title, mine.slice(0, LEVELS_SHOWN)),
      drawn.length ? donorsChart(site, place, { column: title, level, rows: drawn }) : null),
    drawn.length ? null : note("No donors to compare here: no claim across donors."),
    lazily(["Table: ", named(title)], () => groupTable(title, mine))];
  });
}

function groupTable(title, rows) {
  const heads = [{ text: "Level" }, { text: "AUROC", n: true, title: "held out (chosen)" }, { text: "Fold", n: true }, { text: "q", n: true, title: "held out (chosen)" },
    { text: "Effect", n: true, title: "Difference of means across donors, with its interval" }, { text: "q donors", n: true }, { text: "Donors", n: true }];
  const short_ = (value) => num(value, 2);
  const ends = (row) => (known(row.effect_low) ? below(`${short_(row.effect_low)} to ${short_(row.effect_high)}`) : null);
  return table(`Levels of ${title}`, heads, rows.map((row) => [named(row.level), both(row.auroc_shown, row.auroc, fixed), both(row.fold_shown, row.fold, short_),
    both(row.q_shown, row.q, chance), [held(row.effect, short_), ends(row)], held(row.q_donors, chance), held(row.donors)]), "cards");
}

function numbersSection(site, place, detail) {
  const all = rowsOf(detail, "numbers");
  if (!all?.length) return [all ? el("p", { class: "dim" }, "No column of the cells holds numbers.") : absent()];
  const heads = [{ text: "Column" }, { text: "ρ, held out", n: true }, { text: "ρ, chosen", n: true }, { text: "q", n: true }];
  return [table("Rank correlations", heads, all.map((row) => [named(row.column), [held(row.rho_shown, fixed), bar(row.rho_shown, 1)],
    [held(row.rho, fixed), bar(row.rho, 1, "chosen")], held(row.q, chance)]))];
}

function cellsSection(site, place, detail) {
  const all = cellsOf(detail);
  if (!all) return [absent()];
  if (!all.length) return [el("p", { class: "dim" }, "none")];
  const has = (key) => all.some((row) => known(row[key]));
  const heads = [{ text: "Cell", key: "name" }, { text: "Type", key: "label" }, { text: "Donor", key: "donor" }, { text: "Split", key: "split" },
    { text: "Highest", n: true, key: "max" }, { text: "Mean", n: true, key: "mean" }]
    .filter((head, i) => !i || has(head.key));
  const made = table("Top cells", heads, all.map((row) => heads.map((head) => (head.n ? num(row[head.key]) : named(row[head.key], {}, 40)))));
  const tsv = () => ({ heads: heads.map((head) => head.text), rows: all.map((row) => heads.map((head) => row[head.key])) });
  return [savableTable(made, { name: `cells-${site.numbers[place]}`, title: "Cells in which it is highest", tsv })];
}

/** Features that are near in some way, each with how near. */
function nearSection(site, place, asked_) {
  const near = nearOf(site, place, asked_);
  if (!near) return absent();
  if (!near.length) return el("p", { class: "dim" }, "none");
  const compare = (other) => el("a", { class: "small", href: addressOf({ view: "compare", with: String(other), feature: site.numbers[place] }) }, "compare");
  return el("ul", { class: "links" }, near.map(({ feature, score }) => el("li", {}, featureLink(site, feature, { full: true }), known(score) ? dim(` ${fixed(score)} `) : " ",
    site.place(feature) === undefined ? null : compare(feature))));
}

function moduleSection(site, place) {
  const column = site.column("module");
  if (!column) return [absent()];
  const mine = column.at(place);
  if (mine === null) return [el("p", { class: "dim" }, "in none")];
  const often = site.column("frequency")?.numbers();
  const members = Array.from({ length: site.rows }, (_, i) => i).filter((i) => column.at(i) === mine && i !== place).sort((a, b) => (often ? often[b] - often[a] : a - b));
  return [note(`Module ${mine}: ${num(members.length)} other ${members.length === 1 ? "feature fires" : "features fire"} together with it, the most frequent first.`),
    el("ul", { class: "links" }, members.slice(0, MEMBERS).map((i) => el("li", {}, featureLink(site, site.numbers[i], { full: true })))),
    members.length > MEMBERS ? note(`And ${num(members.length - MEMBERS)} more.`) : null];
}

function closeButton() {
  return el("button", { type: "button", "data-close": true, class: "close" }, el("span", { "aria-hidden": "true" }, "✕ "), "Close");
}

/** The ways from here: the features beside it in the list, the map, a comparison. */
function waysOf(site, place) {
  const number = site.numbers[place];
  const beside = (by, text) => {
    const other = neighbour(number, by);
    return other === null ? null : el("a", { href: addressOf({ feature: other }), rel: by < 0 ? "prev" : "next" }, text);
  };
  const color = `feature:${number}`;
  return el("p", { class: "ways" }, closeButton(), beside(-1, "← Previous"), beside(1, "Next →"),
    site.has("cells") ? el("a", { href: addressOf({ view: "map", color, feature: number, side: "cells" }) }, "Cells coloured by it") : null,
    el("a", { href: addressOf({ view: "compare", feature: number }) }, "Compare"));
}

function factsSection(site, place) {
  const value = (name) => site.value(name, place);
  const of = (share, count, what) => [held(share, percent), known(count) ? below(`${num(count)} ${what}`) : null];
  return factsOf([["fires in rows", of(value("frequency"), value("rows"), "rows")], ["fires in cells", of(value("cell_frequency"), value("cells"), "cells")],
    ["mean where it fires", held(value("mean"))], ["highest", held(value("max"))]]);
}

/** The whole of one feature. */
function panelBody(site, place, detail) {
  const number = site.numbers[place];
  const kind = site.value("kind", place);
  const module = site.value("module", place);
  const silent = site.value("alive", place) === false;
  const notHeld = site.heldOut ? null : "No cells were held out: the same cells chose and show these.";
  const start = [waysOf(site, place),
    el("div", { class: "head" }, el("h2", { tabindex: -1 }, `Feature ${number}`), kind === null ? null : el("span", { class: "chip" }, named(kind)),
      module === null ? null : el("span", { class: "chip" }, `module ${module}`)),
    ...called(site, place, detail)];
  const near = section("Nearest by direction", "Cosine of the decoder’s directions.", nearSection(site, place, { detail, name: "near", score: "cosine" }));
  if (silent) return [...start, note("It fired in no row, so nothing is known of it."), ...near];
  return [...start, badgesOf(site, place), factsSection(site, place),
    ...section("What its activation depends on", "Shares of its variance, corrected for chance.", shares(site, place)),
    ...section("How strongly it fires", null, histogramChart(site, place, detail) ?? absent()),
    ...section("Genes", notHeld ?? HOW_GENES, ...genesSection(site, place, detail)),
    ...section("Cell types and other columns", notHeld, ...groupsSection(site, place, detail)),
    ...section("What databases say of its genes", null, ...termSections(site, place, detail)),
    ...section("Numbers of the cells", null, ...numbersSection(site, place, detail)),
    ...section("Top cells", "Chosen by the feature itself: they show what it fires on, and prove nothing.", ...cellsSection(site, place, detail)),
    ...near,
    ...section("Fires together with", "In the same rows.", nearSection(site, place, { detail, name: "together", score: "score" })),
    ...section("Its module", null, ...moduleSection(site, place))];
}

let asked = 0; // of several that are asked for the last one is drawn

/** Draw the feature that is open; whether it was drawn and not one asked for later. */
async function drawPanel(site) {
  const panel = find("panel");
  const mine = (asked += 1);
  const number = openNumber();
  if (number === null) {
    panel.replaceChildren();
    return false;
  }
  const place = site.place(number);
  let parts;
  if (place === undefined) {
    parts = [el("p", { class: "ways" }, closeButton()), el("h2", { tabindex: -1 }, `Feature ${number}`),
      el("p", { class: "note" }, number < site.info.features ? "It is not among the features on this page, which holds the most frequent ones." : "There is no such feature.")];
  } else {
    try {
      parts = panelBody(site, place, await openDetail(site, place));
    } catch (error) {
      parts = [el("h2", { tabindex: -1 }, `Feature ${number}`), el("p", { class: "alarm" }, error.message)];
    }
  }
  if (mine !== asked) return false;
  panel.replaceChildren(...parts.flat(Infinity).filter(Boolean));
  panel.scrollTop = 0;
  return true;
}
