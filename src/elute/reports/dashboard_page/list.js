// The list: one row a feature, sorted by any column.

import { bar, el, fixed, named, percent } from "./text.js";
import { address, chosen, feature, features, heldOut, matching, site } from "./state.js";

const STEP = 200; // rows that are drawn at once
let drawn = STEP;

const COLUMNS = [
  { key: "feature", text: "No.", class: "n", ascending: true },
  { key: "frequency", text: "Fires in", class: "n", title: "Share of all rows (a gene of a cell is a row)" },
  { key: "genes", text: "Top genes", class: "genes", ascending: true, title: "By specificity" },
  { key: "kind", text: "Kind", class: "kind", ascending: true },
  { key: "cell_type", text: "Cell type", class: "type", ascending: true },
  { key: "auroc", text: "AUROC", class: "n auroc" },
];

function topGenes(row, by) {
  const names = (row.top_genes ?? []).slice(0, 5);
  const found = by && !names.includes(by) ? [by] : [];
  const parts = [...names, ...found].map((text) => (text === by ? el("mark", {}, named(text, {}, 28)) : named(text, {}, 28)));
  return parts.flatMap((part, i) => (i ? [i === names.length ? " … " : ", ", part] : [part]));
}

function auroc(row) {
  if (row.auroc === null || row.auroc === undefined) return el("span", { class: "dim" }, "not run");
  const held = row.auroc_shown ?? null;
  const words = held === null ? "chosen on all cells" : `held-out cells ${fixed(held)}, chosen on others at ${fixed(row.auroc)}`;
  return el("span", { title: words }, held === null ? "" : `${fixed(held)} `,
    el("span", { class: "dim" }, held === null ? fixed(row.auroc) : `(${fixed(row.auroc)})`));
}

function line({ row, fit }, most) {
  const mine = row.feature === chosen.feature;
  return el("tr", { role: "row", "aria-selected": mine ? "true" : "false", tabindex: -1, "data-feature": row.feature },
    el("td", { role: "gridcell", class: "n" }, el("a", { href: address(row.feature), tabindex: -1 }, String(row.feature))),
    el("td", { role: "gridcell", class: "n" }, percent(row.frequency), bar(row.frequency, most)),
    el("td", { role: "gridcell", class: "genes" }, topGenes(row, fit.by)),
    el("td", { role: "gridcell", class: "kind" }, row.kind ?? "not run"),
    el("td", { role: "gridcell", class: "type" }, row.cell_type === null || row.cell_type === undefined ? "–" : named(row.cell_type, {}, 40)),
    el("td", { role: "gridcell", class: "n auroc" }, auroc(row)));
}

function head() {
  const key = chosen.sort ?? (chosen.query.trim() ? "match" : "frequency");
  const order = chosen.descending ? "descending" : "ascending";
  return el("thead", { role: "rowgroup" }, el("tr", { role: "row", "aria-label": "Sort by" }, COLUMNS.map((column) => {
    const title = column.key === "auroc"
      ? (heldOut() ? "For its best cell type: on held-out cells (on those that chose it)" : "For its best cell type, which the same cells chose")
      : column.title;
    return el("th", { role: "columnheader", scope: "col", class: column.class, "aria-sort": key === column.key ? order : "none", title },
      el("button", { type: "button", "data-sort": column.key }, column.text));
  })));
}

export function drawList() {
  const found = matching();
  const most = Math.max(...features().map((row) => row.frequency));
  const list = document.getElementById("rows");
  list.setAttribute("role", "grid");
  list.setAttribute("aria-label", "Features");
  list.replaceChildren(head(), el("tbody", { role: "rowgroup" }, found.slice(0, drawn).map((item) => line(item, most))));
  const rows = list.querySelectorAll("tbody tr");
  (list.querySelector('tbody tr[aria-selected="true"]') ?? rows[0])?.setAttribute("tabindex", "0");
  const all = features().length;
  const of = `the ${all.toLocaleString("en")} most frequent of ${site().alive.toLocaleString("en")} features that fire`;
  document.getElementById("count").textContent = found.length === all
    ? `Shown: ${of}.`
    : `${found.length.toLocaleString("en")} of ${of}${found.length ? "" : ": nothing here has that among its genes, types or numbers"}.`;
  document.getElementById("more").hidden = found.length <= drawn;
}

/** Mark the row of the feature that is open, without drawing the others anew. */
export function markRow() {
  for (const row of document.querySelectorAll("#rows tbody tr")) {
    const mine = Number(row.dataset.feature) === chosen.feature;
    row.setAttribute("aria-selected", String(mine));
    if (mine) row.scrollIntoView({ block: "nearest" });
  }
}

export function sortBy(key) {
  const column = COLUMNS.find((one) => one.key === key);
  const shown = chosen.sort ?? (chosen.query.trim() ? "match" : "frequency");
  chosen.descending = shown === key ? !chosen.descending : !column.ascending;
  chosen.sort = key;
  drawList();
  document.querySelector(`#rows [data-sort="${key}"]`).focus();
}

export function showMore() {
  drawn += STEP;
  drawList();
}

export function showFirst() {
  drawn = STEP;
}

/** Put the focus on a row: the first, the last, or one so many further than the one that has it. */
export function focusRow(step) {
  const rows = [...document.querySelectorAll("#rows tbody tr")];
  if (!rows.length) return;
  const from = rows.indexOf(document.activeElement?.closest?.("#rows tbody tr"));
  const start = from < 0 ? (step > 0 ? -1 : rows.length) : from;
  const to = Math.max(0, Math.min(rows.length - 1, start + step));
  rows.forEach((row, i) => row.setAttribute("tabindex", i === to ? "0" : "-1"));
  rows[to].focus();
}

/** The row of the open feature, else the first. */
export function focusChosen() {
  const open = feature(chosen.feature) && document.querySelector(`#rows tr[data-feature="${chosen.feature}"]`);
  (open || document.querySelector("#rows tbody tr"))?.focus();
}
