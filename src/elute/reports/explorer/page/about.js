// About the run: what was read, what was tested against what, how many, by whose leave; and how to read the page.

const HOW = [
  ["Chosen and shown", "What a feature stands for is chosen on some cells (of the split “train”) and shown on others (“test”). A number on the cells that",
    "showed it stands first, that on the cells that chose it in brackets, dim."],
  ["Genes", "By specificity: how far a feature’s activation goes with a gene’s expression from cell to cell, as z against independence. The plain sum",
    "of activation × expression stands beside, and names genes that are expressed everywhere."],
  ["Kind", "What a feature’s activation depends on: which gene a row is, which cell it is in, or both. One that fires on one gene in every cell knows",
    "that gene, and no biology."],
  ["AUROC", "The chance that a cell of the type has more of the feature than another cell; 0.5 tells nothing."],
  ["Donors", "Thousands of cells of one donor are one observation: q across donors counts donors."],
  ["q of a term", "The larger of two p: against any genes, and among genes alike in expression, detection and number of annotations; corrected over all",
    "features and all terms of a database. What only the first finds is said to be found “only by a plain test”."],
  ["Confidence of a name", "0 where nothing speaks for it, 1 where nothing is left to speak against it; 0.5 is as much for as against."],
  ["Not run", "What this run did not compute. It is not zero."],
];

const CONTROL_WORDS = {
  features: "features", "permuted labels": "features, labels permuted", neurons: "neurons", "principal components": "principal components", genes: "single genes",
  "another seed": "features of another seed", "random weights": "features on random weights", "embedding layer": "features of the embedding layer",
};

/** A value of any kind as text that a person can read. */
function plainly(value) {
  if (!known(value)) return dim("not recorded");
  const pair = (one) => (Array.isArray(one) && one.length === 2 ? [named(one[0]), " ", plainly(one[1])] : plainly(one));
  if (Array.isArray(value)) return value.length ? joined(value.map(pair)) : "none";
  if (typeof value === "object") return joined(Object.entries(value).map(([key, one]) => [named(key.replaceAll("_", " ")), ": ", plainly(one)]), "; ");
  return typeof value === "number" ? num(value) : typeof value === "boolean" ? (value ? "yes" : "no") : named(value, {}, 300);
}

/** How much of the variance the features explain, beside as many principal directions. */
function explainedFact({ explained }) {
  if (!known(explained?.explained)) return dim(NOT_RUN);
  return [percent(explained.explained), known(explained.explained_pca) ? dim(` (as many principal directions: ${percent(explained.explained_pca)})`) : null,
    explained.explained_on ? dim(` of ${explained.explained_on} rows`) : null];
}

function shownFacts(info) {
  const { cells } = info;
  const map = (how) => (how ? named(how, {}, 200) : dim("none"));
  const sampled = cells?.sampled ? below("a sample by cell type and donor") : null;
  const cut = info.shown < info.features ? below(`the ${num(info.shown)} most frequent are on this page`) : null;
  return [["features", [num(info.features), known(info.alive) ? `, ${num(info.alive)} fire` : null, cut]], ["variance explained", explainedFact(info)],
    ["cells on this page", cells ? [held(cells.shown), known(cells.of) ? ` of ${num(cells.of)}` : null, sampled] : dim("none")],
    ["map of cells", map(cells?.map)], ["map of features", map(info.feature_map)]];
}

function runFacts(site) {
  const about = INFO.about ?? {};
  const usual = ["model", "data", "rows", "cells", "donors", "splits", "elute", "made_of", "licences"];
  const others = Object.entries(about).filter(([key, value]) => !usual.includes(key) && known(value));
  const written_ = about.elute ?? INFO.version;
  return factsOf([["model", plainly(about.model)], ["data", plainly(about.data)], ["site", named(site.info.name)], ["rows", plainly(about.rows)],
    ["cells", plainly(about.cells)], ["donors", about.donors === 0 ? "none given" : plainly(about.donors)], ["split", plainly(about.splits)], ...shownFacts(site.info),
    ["written by", known(written_) ? `elute ${written_}` : dim("not recorded")], ...others.map(([key, value]) => [key.replaceAll("_", " "), plainly(value)])]);
}

const CONTROL_HEADS = [{ text: "On" }, { text: "Columns", n: true }, { text: "Cells", n: true }, { text: "Follow a type", n: true },
  { text: "Gene identity", n: true, title: "Share of those that fire that know which gene a row is" },
  { text: "Found again", n: true, title: "Share with a like direction in a dictionary of another seed (by chance)" }];

function controlRow(name, one, kinds) {
  const title = named(own(CONTROL_WORDS, name) ?? name);
  if (one["not run"]) return [[title, below(NOT_RUN, ": ", named(one["not run"], {}, 120))], ...CONTROL_HEADS.slice(1).map(() => dim("–"))];
  const fire = Object.values(kinds).reduce((sum, count) => sum + count, 0) - (kinds.silent ?? 0) - (kinds.rare ?? 0);
  const again = one["found again"];
  return [title, held(one.columns, num, "–"), held(one.cells, num, "all"), [held(one.follow, num, "–"), known(one.most) ? dim(` (at most ${num(one.most)})`) : null],
    fire > 0 ? percent((kinds["gene identity"] ?? 0) / fire) : dim("–"), known(again) ? both(again, one["found again by chance"], percent) : dim("–")];
}

/** How many features differ across donors, beside the same with levels dealt out anew. */
function donorNote(told, column, part) {
  const title = named(column === "label" ? told.label ?? "cell type" : column);
  if (part["not run"]) return note(title, `, across donors: ${NOT_RUN}, ${part["not run"]}.`);
  const times = part.permuted?.length ?? 0;
  const null_ = times ? `with levels dealt out anew inside donors ${num(Math.max(...part.permuted))} at most of ${times} times` : "no null could be drawn";
  return note(title, `, across ${num(part.donors)} donors: ${num(part.features)} features differ; ${null_}.`);
}

/** Features that follow a cell type, beside what they are held against. */
function controlsTable(site) {
  const told = site.info.controls;
  if (!told?.follow) return [absent()];
  const rows = Object.entries(told.follow).map(([name, one]) => controlRow(name, one, own(told.kinds, name) ?? {}));
  return [table("Features that follow a cell type, beside controls", CONTROL_HEADS, rows, "cards"),
    known(told.at) ? note(`To follow a type is an AUROC of ${num(told.at)} or more on the cells that chose it, and again on those held out.`) : null,
    ...Object.entries(told["across donors"] ?? {}).map(([column, part]) => donorNote(told, column, part))];
}

const DATABASE_HEADS = [{ text: "Database" }, { text: "Features with a term", n: true, title: "With a term at the rate, against any genes and against like genes" },
  { text: "By chance", n: true, title: "Mean over lists of genes alike, and its range" }, { text: "Excess", n: true, title: "What is more than chance gives, and its interval" },
  { text: "Plain test", n: true, title: "What a test against any genes alone would say" },
  { text: "On other cells", n: true, title: "With a term that is significant again with the genes that other cells choose" },
  { text: "Controls", title: "The same test on features of a control" }];

function databaseRow(one) {
  const range = (low, high) => (known(low) && known(high) ? below(`${num(low)} to ${num(high)}`) : null);
  const control = ([name, told]) => `${name} ${known(told?.significant) ? `${num(told.significant)} of ${num(told.of)}` : NOT_RUN}`;
  const controls = Object.entries(one.controls ?? {}).map(control);
  return [[named(one.title ?? one.name), below(named(one.snapshot, {}, 80))], [num(one.significant), dim(` of ${num(one.features)}`)],
    [held(one.null?.mean), range(one.null?.low, one.null?.high)], [held(one.excess), range(one.excess_low, one.excess_high)],
    held(one.plain), held(one.again), controls.length ? joined(controls, "; ") : dim(NOT_RUN)];
}

/** Each database's count beside what chance gives, and beside its controls. */
function databasesTable(site) {
  const all = site.info.databases ?? [];
  if (!all.length) return [absent()];
  const run = all.filter((one) => one.status === "run" && known(one.significant));
  const why = (one) => el("dd", { class: "dim" }, one.status === "run" ? "no count" : NOT_RUN, one.why ? [": ", named(one.why, {}, 300)] : null);
  const others = all.filter((one) => !run.includes(one)).map((one) => el("div", {}, el("dt", {}, named(one.title ?? one.name)), why(one)));
  return [run.length ? table("Databases, each beside chance", DATABASE_HEADS, run.map(databaseRow), "cards") : absent(),
    others.length ? el("dl", { class: "absent" }, others) : null];
}

function licencesList(site) {
  const mine = (site.info.databases ?? []).filter((one) => one.status === "run" && one.licence).map((one) => [one.title ?? one.name, one.licence]);
  const given = (INFO.about?.licences ?? []).map((one) => (Array.isArray(one) ? one : typeof one === "object" ? [one.title ?? one.name, one.licence] : [null, one]));
  const titles = new Set(mine.map(([title]) => title));
  const all = [...mine, ...given.filter(([title]) => !titles.has(title))];
  if (!all.length) return el("p", { class: "dim" }, "none recorded");
  return el("ul", { class: "plain" }, all.map(([title, licence]) => el("li", {}, title ? [el("strong", {}, named(title)), ": "] : null, named(licence, {}, 300))));
}

function keysList() {
  const all = [[["/"], "search"], [["↑", "↓"], "move in the list"], [["Page Up", "Page Down"], "move by a page"], [["Home", "End"], "to the first, to the last"],
    [["Enter"], "open the feature"], [["Esc"], "clear the search, close the feature"], [["←", "→"], "in a feature: the one before, the next"], [["?"], "these keys"]];
  return el("dl", { class: "keys-list" }, all.map(([some, what]) => el("div", {}, el("dt", {}, joined(some.map((one) => el("kbd", {}, one)), " ")), el("dd", {}, what))));
}

/** The page about the run. */
function drawAbout(site) {
  const made = [INFO.about?.made_of ?? []].flat();
  find("about").replaceChildren(...[el("h2", { tabindex: -1 }, "About ", named(INFO.run)), runFacts(site),
    made.length ? [el("h3", {}, "What it was made of"), el("ul", { class: "plain" }, made.map((one) => el("li", {}, plainly(one))))] : null,
    ...section("Features that follow a cell type, beside controls", null, ...controlsTable(site)),
    ...section("Databases, each beside chance", known(site.info.fdr) ? `Features with a term at q ≤ ${site.info.fdr}.` : null, ...databasesTable(site)),
    sitesTable(),
    ...section("Licences of the sources", null, licencesList(site)),
    el("h3", {}, "How to read this"), el("dl", { class: "how" }, HOW.map(([term, ...told]) => el("div", {}, el("dt", {}, term), el("dd", {}, told.join(" "))))),
    el("h3", {}, "Keys"), keysList()].flat(Infinity).filter(Boolean));
}
