// One feature: its name and why, its genes, and its terms by database, each beside its null and the other donors.

import { bar, chance, el, fixed, named, NOT_RUN, num, percent } from "./text.js";
import { chosen, details, INDEX, networkOf, placeOf, symbolOf } from "./data.js";
import { beside } from "./list.js";
import { forest, picture, tree } from "./pictures.js";

const BEST = 12; // terms in the chart
const GENES = 12; // of an overlap, before the rest is asked for

function dim(...content) {
  return el("span", { class: "dim" }, content);
}

function held(value, write = chance) {
  return value === null || value === undefined ? dim(NOT_RUN) : write(value);
}

function oddsText(value) {
  return value === "inf" ? "∞" : num(value);
}

function symbols(place, list, most) {
  const names = list.map((gene) => named(symbolOf(place, gene), { class: "name gene" }, 40));
  const write = (part) => part.flatMap((name, i) => (i ? [" ", name] : [name]));
  if (names.length <= most) return write(names);
  return [...write(names.slice(0, most)), " ", el("details", { class: "more" }, el("summary", {}, `and ${names.length - most} more`), write(names.slice(most)))];
}

/** Broader terms that repeat what a term says. */
function folded(source, rows) {
  if (!rows.length) return null;
  return el("details", {}, el("summary", {}, rows.length === 1 ? "1 broader term says the same" : `${rows.length} broader terms say the same`),
    el("ul", {}, rows.map((row) => el("li", {}, named(source.labels[row.term], {}, 120), " ", dim(`${num(row.overlap)} of ${num(row.list_size)} genes, q ${chance(row.q)}`)))));
}

/** What other tests say of the same pair. */
function further(row) {
  const told = [];
  if (row.auc !== null || row.q_rank !== null) told.push(`whole ranking: AUROC ${row.auc === null ? NOT_RUN : fixed(row.auc)}, q ${chance(row.q_rank)}`);
  if (row.p_parent !== null) told.push(`within its parents: p ${chance(row.p_parent)}`);
  return told.length ? el("span", { class: "below" }, told.join("; ")) : null;
}

function termRow(place, source, row, under) {
  const ends = row.odds_low === null || row.odds_high === null ? null : el("span", { class: "below" }, `${oddsText(row.odds_low)} to ${oddsText(row.odds_high)}`);
  const shown = row.q_shown === null && row.p_shown === null ? dim(NOT_RUN)
    : [held(row.q_shown), el("span", { class: "below" }, `p ${chance(row.p_shown)}`)];
  const numbers = el("tr", {},
    el("th", { scope: "row" }, named(source.labels[row.term], { class: "name term" }, 160),
      el("span", { class: "below" }, named(source.terms[row.term], {}, 60), source.groups[row.term] ? [" · ", named(source.groups[row.term], {}, 40)] : null,
        row.folded_under !== null && !under ? " · folded" : null)),
    el("td", { class: "n", "data-label": "genes" }, `${num(row.overlap)} of ${num(row.list_size)}`, el("span", { class: "below" }, `${num(row.expected, 2)} expected`)),
    el("td", { class: "n", "data-label": "odds" }, held(row.odds, oddsText), ends),
    el("td", { class: "n", "data-label": "q" }, held(row.q), el("span", { class: "below" }, `p ${chance(row.p)}`),
      el("span", { class: "below" }, `like genes p ${chance(row.null_p)}`), row.level === 2 ? el("span", { class: "below flag" }, "only by a plain test") : null),
    el("td", { class: "n", "data-label": INDEX.others }, shown));
  const more = el("tr", {}, el("td", { class: "detail", colspan: 5 }, el("span", { class: "genes" }, symbols(place, row.genes, GENES)), further(row), folded(source, under ?? [])));
  return el("tbody", { class: [null, "passes", "doubt"][row.level] }, numbers, more);
}

const heads = () => [["Term", null], ["Genes", "In common, of the feature’s list; and how many chance gives"], ["Odds", "With their interval"],
  ["q", "Over all features and terms of this database, from the larger p of the two below it: against any genes, and among genes alike in expression, detection and number of annotations"],
  [INDEX.others[0].toUpperCase() + INDEX.others.slice(1), "q of this term with genes chosen on cells that had no part in it; below it p"]];

/** A database's terms; what was folded stands below what it was folded under. */
function terms(place, source) {
  const kept = source.rows.filter((row) => row.folded_under === null);
  const at = new Set(kept.map((row) => row.term));
  const under = (term) => source.rows.filter((row) => row.folded_under === term);
  const alone = source.rows.filter((row) => row.folded_under !== null && !at.has(row.folded_under));
  const rows = [...kept.map((row) => termRow(place, source, row, under(row.term))), ...alone.map((row) => termRow(place, source, row))];
  const more = source.stored > source.rows.length ? el("p", { class: "note" }, `The first ${source.rows.length} of ${source.stored}; all are in ${source.name}.parquet.`) : null;
  return [el("div", { class: "wide" }, el("table", { class: "terms cards" },
    el("caption", {}, `Terms of ${source.title}`),
    el("thead", {}, el("tr", {}, heads().map(([text, title], i) => el("th", { scope: "col", title, class: i ? "n" : null }, text)))),
    rows)), more];
}

/** The order of reading: databases that found something, then those that did not, then those that were not asked. */
function databases(place, told) {
  const listed = told.sources.filter((source) => source.kind !== "network");
  const best = (source) => Math.min(...source.rows.map((row) => row.q ?? 1), 2);
  const found = listed.filter((source) => source.rows.length).sort((a, b) => best(a) - best(b) || a.at - b.at);
  const empty = listed.filter((source) => source.run && source.kind === "terms" && !source.rows.length);
  const lost = listed.filter((source) => source.run && source.kind === "none");
  const absent = listed.filter((source) => !source.run);
  return [
    ...found.flatMap((source) => [el("h3", {}, named(source.title)), ...terms(place, source)]),
    empty.length ? el("p", { class: "note" }, "Asked, and no term came near: ", empty.map((source) => source.title).join(", "), ".") : null,
    lost.length ? el("p", { class: "note" }, "Run, but the tables are not here: ", lost.map((source) => source.title).join(", "), ".") : null,
    absent.length ? el("p", { class: "note" }, "Not run, so nothing is known: ", absent.map((source) => source.title).join(", "), ".") : null,
  ];
}

function network(place, told) {
  const source = told.sources.find((one) => one.kind === "network");
  if (!source) return [];
  const heading = el("h3", {}, named(source.title), " interactions");
  const row = told.network;
  if (!source.run) return [heading, el("p", { class: "dim" }, NOT_RUN)];
  if (!row) return [heading, el("p", { class: "note" }, "None of its genes is known to interact.")];
  const facts = [["interactions", [num(row.edges), dim(` among ${num(row.genes)} genes`)]], ["expected of their degrees", held(row.expected, num)],
    ["lists of the same degrees", [held(row.q_null, (value) => `q ${chance(value)}`), dim(` p ${chance(row.null_p)}`)]],
    ["STRING’s own test", [held(row.q, (value) => `q ${chance(value)}`), dim(` p ${chance(row.p)}`)]]];
  return [heading, factsOf(facts), row.hubs.length ? el("p", { class: "note" }, "They go through ", row.hubs.flatMap((hub, i) => (i ? [", ", named(hub)] : [named(hub)])), ".") : null,
    told.picture ? picture(INDEX.feature[place], source, told.picture) : null];
}

function factsOf(facts) {
  return el("dl", { class: "facts" }, facts.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

/** What it is called, how sure that is, and why. */
function called(place) {
  if (!INDEX.named) return [el("p", { class: "called" }, dim(`name: ${NOT_RUN}`)), factsOf(about(place))];
  const text = INDEX.name[place];
  const term = INDEX.name_term[place];
  const source = INDEX.name_source[place];
  const facts = [["confidence", [held(INDEX.confidence[place], fixed), bar(INDEX.confidence[place], 1)]],
    ["named by", source === null ? dim("–") : [named(titleOf(source), {}, 80), term === null ? null : dim(" ", named(term, {}, 80))]]];
  return [el("p", { class: "called" }, text === null ? dim("no name") : named(text, {}, 300)),
    INDEX.name_reason[place] === null ? null : el("p", { class: "reason" }, named(INDEX.name_reason[place], {}, 400)),
    factsOf([...facts, ...about(place)])];
}

/** What a name rests on: a database by its title, or what else it was taken from. */
function titleOf(name) {
  if (["kind", "cells", "genes"].includes(name)) return `its ${name}`;
  return INDEX.sources.find((source) => source.name === name)?.title ?? name;
}

function about(place) {
  const type = INDEX.cell_type[place];
  const auroc = `AUROC ${INDEX.auroc[place] === null ? NOT_RUN : fixed(INDEX.auroc[place])}${INDEX.held ? ", held out" : ", on the cells that chose it"}`;
  return [["fires in", held(INDEX.frequency[place], percent)], ["cell type", type === null ? dim("–") : [named(type, {}, 60), dim(` ${auroc}`)]]];
}

/** The best terms of all databases that were not folded. */
function best(told) {
  return told.sources.flatMap((source) => source.rows.filter((row) => row.folded_under === null)
    .map((row) => ({ ...row, label: source.labels[row.term], source: source.title })))
    .sort((a, b) => (a.q ?? 2) - (b.q ?? 2) || a.p - b.p).slice(0, BEST);
}

function body(place, told) {
  const number = INDEX.feature[place];
  const go = (by, text) => {
    const other = beside(number, by);
    return other === null ? null : el("a", { href: `#feature-${other}`, rel: by < 0 ? "prev" : "next" }, text);
  };
  const trees = told.sources.filter((source) => source.tree.length);
  return [
    el("div", { class: "ways" }, el("button", { id: "back", type: "button" }, "← All features"), go(-1, "← Previous"), go(1, "Next →")),
    el("div", { class: "head" }, el("h2", { tabindex: -1 }, `Feature ${number}`), INDEX.kind[place] === null ? null : el("span", { class: "chip" }, named(INDEX.kind[place]))),
    ...called(place),
    el("h3", {}, "Genes"), INDEX.lists[place].length
      ? el("p", { class: "genes" }, INDEX.lists[place].flatMap((gene, i) => [i ? " " : "", named(INDEX.symbols[gene], { class: "name gene" }, 40)]))
      : el("p", { class: "dim" }, "none"),
    forest(number, best(told)),
    ...databases(place, told), ...network(place, told),
    ...trees.flatMap((source) => [el("h3", {}, named(source.title), " as a tree"), tree(number, source)]),
  ];
}

let asked = 0;

/** Draw the chosen feature; one that was asked for later wins. */
export async function drawPanel() {
  const panel = document.getElementById("panel");
  const mine = (asked += 1);
  const place = placeOf(chosen.feature);
  document.body.classList.toggle("open", chosen.feature !== null);
  let parts = [el("p", { class: "note empty" }, "Choose a feature from the list.")];
  if (place !== undefined) parts = body(place, { ...(await details(place)), picture: await networkOf(chosen.feature) });
  else if (chosen.feature !== null) {
    parts = [el("div", { class: "ways" }, el("button", { id: "back", type: "button" }, "← All features")),
      el("h2", { tabindex: -1 }, `Feature ${chosen.feature}`), el("p", { class: "note" }, "There is no such feature here that fires.")];
  }
  if (mine !== asked) return;
  panel.replaceChildren(...parts.filter((part) => part !== null && part !== undefined));
  panel.scrollTop = 0;
}
