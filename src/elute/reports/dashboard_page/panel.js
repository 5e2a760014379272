// One feature: what it fires on, each number beside the same on cells that did not choose it.

import { bar, both, chance, el, fixed, named, NOT_RUN, num, percent, svg, table } from "./text.js";
import { chosen, feature, heldOut, link, rowsOf, site } from "./state.js";

const SHOWN = 20; // genes, levels and cells before the rest is asked for

function section(title, note, ...content) {
  return [el("h3", {}, title), note && el("p", { class: "note" }, note), ...content];
}

function absent() {
  return el("p", { class: "dim" }, NOT_RUN);
}

function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

/** How much of its variance is told by which gene the row is, by which cell, and by neither alone. */
function shares(row) {
  const parts = [["by gene", "gene", row.by_gene], ["by cell", "cell", row.by_cell], ["by neither alone", "neither", row.neither]];
  if (parts.every(([, , value]) => value === null || value === undefined)) return absent();
  return el("div", {},
    el("div", { class: "shares", "aria-hidden": "true" }, parts.map(([, kind, value]) =>
      el("i", { class: kind, "--share": `${100 * Math.max(0, Math.min(1, value ?? 0))}%` }))),
    el("div", { class: "keys" }, parts.map(([text, kind, value]) => el("span", { class: `key ${kind}` }, `${text} ${percent(value)}`))));
}

function histogram(row) {
  const bins = row.histogram;
  if (!bins || !bins.some((count) => count > 0)) return absent();
  const first = bins.findIndex((count) => count > 0);
  const last = bins.findLastIndex((count) => count > 0);
  const counts = bins.slice(first, last + 1);
  const most = Math.max(...counts);
  const [width, height, foot] = [420, 90, 18];
  const step = Math.min(width / counts.length, 42);
  const edges = site().edges?.length === bins.length - 1 ? [0, ...site().edges, row.max ?? null] : null;
  const range = (i) => (edges ? `${num(edges[first + i])} to ${num(edges[first + i + 1])}` : `bin ${first + i}`);
  const bars = counts.map((count, i) => {
    const tall = count ? Math.max(1, (height * count) / most) : 0;
    return svg("rect", { x: i * step + 1, width: Math.max(1, step - 2), y: height - tall, height: tall },
      svg("title", {}, `${range(i)}: ${num(count)} rows`));
  });
  const ends = edges ? [num(edges[first]), num(edges[last + 1])] : ["", ""];
  const label = `Rows by activation, from ${ends[0] || "the lowest"} to ${ends[1] || "the highest"}; ${num(most)} in the fullest bin`;
  return svg("svg", { viewBox: `0 0 ${width} ${height + foot}`, role: "img", "aria-label": label }, bars,
    svg("line", { x1: 0, x2: step * counts.length, y1: height, y2: height }),
    svg("text", { x: 0, y: height + 14 }, ends[0]),
    svg("text", { x: counts.length * step, y: height + 14, "text-anchor": "end" }, ends[1]));
}

/** The two rankings beside each other: the sum alone lists what is expressed everywhere. */
function genes(number) {
  const all = rowsOf("feature_genes", number);
  if (!all) return [absent()];
  const ranked = (key) => all.filter((gene) => (gene[key] ?? null) !== null).sort((a, b) => a[key] - b[key]).slice(0, SHOWN);
  const [specific, raw] = [ranked("rank"), ranked("rank_raw")];
  const most = Math.max(...specific.flatMap((gene) => [Math.abs(gene.z ?? 0), Math.abs(gene.z_shown ?? 0)]), 0);
  const heaviest = Math.max(...raw.map((gene) => Math.abs(gene.score ?? 0)), 0);
  const symbol = (gene) => named(gene.symbol ?? gene.gene, { title: gene.gene });
  const heads = [{ text: "Gene" }, { text: "z, held out", n: true, title: "On cells that did not choose it" },
    { text: "z, chosen", n: true, title: "On the cells that chose it" },
    { text: "Fires", n: true, title: "Share of the gene's rows in which the feature fires" },
    { text: "Mean", n: true, title: "Score by cell in which it fired" }];
  return [el("div", { class: "pair" },
    el("div", {}, el("h4", {}, "By specificity"),
      specific.length ? table("Genes by specificity", heads, specific.map((gene) => [symbol(gene),
        [num(gene.z_shown), bar(gene.z_shown, most)], [num(gene.z), bar(gene.z, most, "chosen")],
        percent(gene.rate), num(gene.mean)])) : absent()),
    el("div", {}, el("h4", {}, "By plain sum"),
      raw.length ? table("Genes by plain sum", [{ text: "Gene" }, { text: "Score", n: true }],
        raw.map((gene) => [symbol(gene), [num(gene.score), bar(gene.score, heaviest, "chosen")]])) : absent()))];
}

/** What a donor's cells differ by, on average, and the interval below it. */
function effect(row) {
  if ((row.effect ?? null) === null) return NOT_RUN;
  const ends = (row.effect_low ?? null) === null ? null : `${num(row.effect_low, 2)} to ${num(row.effect_high, 2)}`;
  return [num(row.effect, 2), el("span", { class: "below" }, ends)];
}

/** Each column of the cells: its levels, by how well the feature tells them from the others. */
function groups(number) {
  const all = rowsOf("feature_groups", number);
  if (!all) return [absent()];
  if (!all.length) return [el("p", { class: "dim" }, "No column of the cells has levels to compare.")];
  const donors = all.some((row) => row.donors > 0);
  const paired = "Held out, and in brackets on the cells that chose";
  const heads = [{ text: "Level" }, { text: "Cells", n: true }, { text: "held out", n: true }, { text: "chosen", n: true },
    { text: "Fold", n: true, title: paired }, { text: "q", n: true, title: paired },
    ...(donors ? [{ text: "effect", n: true, title: "With its interval" }, { text: "q", n: true }, { text: "donors", n: true }] : [])];
  const above = [["", 2], ["AUROC", 2], ["held out (chosen)", 2], ...(donors ? [["over donors", 3]] : [])];
  const rows = (list) => list.map((row) => [named(row.level), num(row.inside),
    [fixed(row.auroc_shown ?? null), bar(beyond(row.auroc_shown), 0.5)], [fixed(row.auroc ?? null), bar(beyond(row.auroc), 0.5, "chosen")],
    both(row.fold_shown, row.fold, (value) => num(value, 2)), both(row.q_shown, row.q, chance),
    ...(donors ? [effect(row), chance(row.q_donors), num(row.donors)] : [])]);
  const parts = [...new Set(all.map((row) => row.column))].flatMap((column) => {
    const mine = all.filter((row) => row.column === column).sort((a, b) => (b.auroc ?? 0) - (a.auroc ?? 0));
    return [el("h4", {}, column === "label" ? "cell type" : named(column)), table(`Levels of ${column}`, heads, rows(mine.slice(0, SHOWN)), above),
      mine.length > SHOWN && el("p", { class: "note" }, `The first ${SHOWN}; all are in feature_groups.parquet.`)].filter(Boolean);
  });
  return donors ? parts : [...parts, el("p", { class: "note" }, "No donors were given: no claim about donors.")];
}

function beyond(auroc) {
  return auroc === null || auroc === undefined ? null : auroc - 0.5;
}

function numbers(number) {
  const all = rowsOf("feature_numbers", number);
  if (!all?.length) return [all ? el("p", { class: "dim" }, "No column of the cells holds numbers.") : absent()];
  const heads = [{ text: "Column" }, { text: "ρ, held out", n: true }, { text: "ρ, chosen", n: true }, { text: "q", n: true }];
  return [table("Rank correlations", heads, all.map((row) => [named(row.column),
    [fixed(row.rho_shown ?? null), bar(row.rho_shown, 1)], [fixed(row.rho ?? null), bar(row.rho, 1, "chosen")], chance(row.q)]))];
}

function cells(number) {
  const all = rowsOf("feature_cells", number);
  if (!all) return [absent()];
  const has = (key) => all.some((row) => (row[key] ?? null) !== null);
  const heads = [{ text: "Cell" }, ...(has("label") ? [{ text: "Type", key: "label" }] : []),
    ...(has("donor") ? [{ text: "Donor", key: "donor" }] : []), ...(has("split") ? [{ text: "Split", key: "split" }] : []),
    { text: "Max", n: true, key: "max" }, { text: "Mean", n: true, key: "mean" }, { text: "Sum", n: true, key: "sum" }];
  const rows = all.slice(0, SHOWN).map((row) => heads.map((head) =>
    head.n ? num(row[head.key]) : named(head.key ? row[head.key] : row.cell)));
  return [table("Top cells", heads, rows)];
}

function others(names, values) {
  if (!names) return absent();
  if (!names.length) return el("p", { class: "dim" }, "none");
  return el("ul", { class: "links" }, names.map((number, i) => el("li", {}, link(number), el("span", { class: "dim" }, ` ${fixed(values?.[i] ?? null)}`))));
}

/** How many features follow a cell type, beside what they are held against. */
function controls() {
  const held = site().controls;
  if (!held) return [absent()];
  const heads = [{ text: "On" }, { text: "Cells", n: true }, { text: "Columns", n: true }, { text: "Follow a type", n: true },
    { text: "Gene identity", n: true, title: "Share of the features that fire in more than a few rows and know which gene a row is" },
    { text: "Found again", n: true, title: "Share with a like direction in a dictionary of another seed, and by chance" }];
  const rows = held.rows.map((row) => (row.not_run ? [row.name, "", NOT_RUN, "", "", ""] : [row.name, (row.cells ?? null) === null ? "all" : num(row.cells),
    (row.columns ?? null) === null ? "–" : num(row.columns), (row.follow ?? null) === null ? "–" : num(row.follow),
    (row.identity ?? null) === null ? "–" : percent(row.identity),
    (row.found_again ?? null) === null ? "–" : `${percent(row.found_again)} (${percent(row.found_again_by_chance ?? 0)})`]));
  const at = `To follow a type is an AUROC of ${num(held.at)} or more, on the cells that chose it and again on those held out.`;
  const donors = (held.donors ?? []).map((part) => el("p", { class: "note" }, part.not_run ? `${part.name}, across donors: ${NOT_RUN}, ${part.not_run}.`
    : `${part.name}, across ${num(part.donors)} donors: ${num(part.features)} features differ; ${part.times
      ? `with levels dealt out anew inside donors ${num(part.most)} at most of ${num(part.times)} times.` : "each donor has one level alone, so no null was drawn."}`));
  return [table("Features that follow a cell type, beside controls", heads, rows), el("p", { class: "note" }, at), ...donors];
}

/** What the numbers mean, where no feature is open. */
function explanation() {
  const held = heldOut()
    ? "What a feature stands for is chosen on some cells and shown on others, of other donors where donors are known: read the numbers held out; those on the cells that chose are dim."
    : "No cells were held out: each number is of the cells that chose it, and reads better than it is.";
  return [el("h2", {}, "How to read this"),
    el("p", { class: "note" }, held),
    el("p", { class: "note" }, "Choose a feature from the list. Genes stand by specificity, a z-score against what a gene's own frequency and expression give; the plain sum of activation × expression stands beside, and names genes that are expressed everywhere."),
    el("p", { class: "note" }, "The kind says what a feature's activation depends on: which gene the row is, which cell it is in, or both. A feature that fires on one gene in every cell knows that gene and no biology."),
    el("p", { class: "note" }, el("kbd", {}, "/"), " search, ", el("kbd", {}, "↑"), " ", el("kbd", {}, "↓"), " move, ", el("kbd", {}, "Enter"), " open, ", el("kbd", {}, "Esc"), " back. “Not run” is what this run did not compute."),
    ...section("All features, beside controls", null, ...controls())];
}

function body(row) {
  const held = heldOut();
  return [
    el("button", { id: "back", type: "button" }, "← All features"),
    el("div", { class: "head" }, el("h2", { tabindex: -1 }, `Feature ${row.feature}`), el("span", { class: "chip" }, row.kind ?? "kind: not run"),
      (row.module ?? null) === null ? null : el("span", { class: "chip" }, `module ${row.module}`)),
    facts([["fires in rows", `${percent(row.frequency)} (${num(row.rows)})`], ["fires in cells", `${percent(row.cell_frequency)} (${num(row.cells)})`],
      ["mean where it fires", num(row.mean)], ["highest", num(row.max)]]),
    ...section("What its activation depends on", null, shares(row)),
    ...section("How strongly it fires", "Rows by activation, two bins to each doubling.", histogram(row)),
    ...section("Genes", held ? null : "No cells were held out: the same cells chose and show these.", ...genes(row.feature)),
    ...section("Cell types and other columns", null, ...groups(row.feature)),
    ...section("Numbers of the cells", null, ...numbers(row.feature)),
    ...section("Top cells", "Chosen by the feature itself: they show what it fires on, and prove nothing.", ...cells(row.feature)),
    ...section("Nearest by direction", "Cosine of the decoder's rows.", others(row.near, row.near_cosine)),
    ...section("Fires together with", null, others(row.together, row.together_score)),
  ];
}

export function drawPanel() {
  const panel = document.getElementById("panel");
  const row = chosen.feature === null ? null : feature(chosen.feature);
  document.body.classList.toggle("open", Boolean(row));
  panel.replaceChildren(...(row ? body(row) : explanation()).filter((part) => part !== null && part !== undefined));
  panel.scrollTop = 0;
}
