// The page as a whole: its head, its controls, its keys.

import { el, named, NOT_RUN, num, percent } from "./text.js";
import { address, chosen, DATA, features, readAddress, site } from "./state.js";
import { drawList, focusChosen, focusRow, markRow, showFirst, showMore, sortBy } from "./list.js";
import { drawPanel } from "./panel.js";

const find = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 899px)");
let followed = ""; // the address as it was last drawn

function drawHead() {
  const { about } = DATA;
  const mine = site().about;
  const splits = (about.splits ?? []).map(([name, count]) => `${num(count)} ${name}`).join(", ");
  const donors = about.donors ? `, ${num(about.donors)} donors` : ", no donors given";
  const pca = (mine.explained_pca ?? null) === null ? "" : `; as many principal directions: ${percent(mine.explained_pca)}`;
  const on = mine.explained_on ? ` of ${mine.explained_on} rows` : "";
  const of = mine.n_features ? `${num(mine.n_features)} features, up to ${num(mine.k)} at a time` : `${num(site().of)} features`;
  const pairs = [
    ["model", about.model ? named(about.model) : "not recorded"],
    ["site", named(site().name)],
    ["cells", about.cells ? `${num(about.cells)}${splits && ` (${splits})`}${donors}` : "not recorded"],
    ["rows", about.rows ? num(about.rows) : "not recorded"],
    ["dictionary", `${of}, ${num(site().alive)} fire`],
    ["variance explained", (mine.explained ?? null) === null ? NOT_RUN : `${percent(mine.explained)}${on}${pca}`],
    ["kinds", site().kinds.length ? site().kinds.map(([kind, count]) => `${kind} ${num(count)}`).join(", ") : NOT_RUN],
  ];
  find("top").replaceChildren(el("h1", {}, named(DATA.run)),
    el("dl", {}, pairs.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)))));
}

function drawControls() {
  const counts = new Map();
  for (const row of features()) if (row.kind) counts.set(row.kind, (counts.get(row.kind) ?? 0) + 1);
  if (!counts.has(chosen.kind)) chosen.kind = "";
  const kinds = [["", "all"], ...[...counts].sort().map(([kind, count]) => [kind, `${kind} (${count})`])];
  find("kind").replaceChildren(...kinds.map(([value, text]) => el("option", { value, selected: value === chosen.kind }, text)));
  find("site").replaceChildren(...DATA.sites.map((one, i) => el("option", { value: i, selected: i === chosen.site }, one.name)));
  find("sites").hidden = DATA.sites.length < 2;
}

function drawSite() {
  drawHead();
  drawControls();
  showFirst();
  drawList();
}

/** Open a feature, or none, as a person does: the address says which, and the way back leads to the list. */
function open(number) {
  location.hash = address(number);
}

function follow() {
  const before = chosen.site;
  readAddress();
  const now = `${chosen.site}/${chosen.feature}`;
  if (now === followed) return; // the event comes after what was done at once: it must not take the focus away
  followed = now;
  if (before !== chosen.site) drawSite();
  drawPanel();
  markRow();
  if (chosen.feature !== null && narrow.matches) scrollTo(0, 0);
}

function close() {
  if (narrow.matches && chosen.feature !== null) {
    const row = chosen.feature;
    location.hash = address(null);
    follow();
    document.querySelector(`#rows tr[data-feature="${row}"]`)?.focus();
    return;
  }
  focusChosen();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target === find("search");
  const row = event.target.closest?.("#rows tbody tr");
  if (event.key === "/" && !typing && event.target.tagName !== "SELECT") find("search").focus();
  else if (event.key === "Escape" && typing && find("search").value) search("");
  else if (event.key === "Escape") close();
  else if ((typing || row) && event.key === "ArrowDown") focusRow(1);
  else if (row && event.key === "ArrowUp") (row.previousElementSibling ? focusRow(-1) : find("search").focus());
  else if (row && event.key === "Home") focusRow(-Infinity);
  else if (row && event.key === "End") focusRow(Infinity);
  else if (event.key === "Enter" && (row || typing)) choose(row ?? document.querySelector("#rows tbody tr"));
  else return;
  event.preventDefault();
}

/** Open a row by the keyboard, and go on reading there. */
function choose(row) {
  if (!row) return;
  open(Number(row.dataset.feature));
  follow();
  document.querySelector("#panel h2").focus({ preventScroll: true });
}

function search(text) {
  find("search").value = chosen.query = text;
  chosen.sort = null;
  chosen.descending = true;
  showFirst();
  drawList();
}

find("controls").addEventListener("submit", (event) => event.preventDefault());
find("search").addEventListener("input", (event) => search(event.target.value));
find("kind").addEventListener("change", (event) => {
  chosen.kind = event.target.value;
  drawList();
});
find("site").addEventListener("change", (event) => {
  location.hash = address(null, Number(event.target.value));
});
find("rows").addEventListener("click", (event) => {
  const sort = event.target.closest("[data-sort]");
  const row = event.target.closest("tbody tr");
  if (sort) sortBy(sort.dataset.sort);
  else if (row) open(Number(row.dataset.feature));
});
find("more").addEventListener("click", showMore);
find("panel").addEventListener("click", (event) => {
  if (event.target.id === "back") close();
});
addEventListener("keydown", keys);
addEventListener("hashchange", follow);

readAddress();
drawSite();
follow();
