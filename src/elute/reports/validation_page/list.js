// The list: a page of features at a time, sorted by any column.

import { bar, chance, el, fixed, named, NOT_RUN } from "./text.js";
import { chosen, INDEX, label, matching, sortKey } from "./data.js";

const PAGE = 50; // features at a time
let shown = []; // all that match, in their order

const COLUMNS = [
  { key: "feature", text: "No.", class: "n" },
  { key: "name", text: "Name and genes", class: "what" },
  { key: "confidence", text: "Conf.", class: "n", descending: true, title: "How well its name is supported, from 0 to 1" },
  { key: "q", text: "Best q", class: "n", title: "The smallest q of any term in any database" },
  { key: "null_p", text: "Like genes", class: "n", title: "p of that term among genes alike in expression, detection and number of annotations; q counts it" },
  { key: "q_shown", text: "Others", class: "n", title: "q of that term with genes chosen on other cells" },
];

function firstGenes({ place, gene }) {
  const list = INDEX.lists[place].slice(0, 5);
  const all = gene === undefined || list.includes(gene) ? list : [...list, gene];
  const parts = all.map((one) => (one === gene ? el("mark", {}, named(INDEX.symbols[one], {}, 24)) : named(INDEX.symbols[one], {}, 24)));
  return parts.flatMap((part, i) => (i ? [i === list.length ? " … " : ", ", part] : [part]));
}

/** Its name; where it has none, its best term says so and stands in its place. */
function heading({ place, term }) {
  const name = INDEX.name[place];
  if (name !== null) return named(name, {}, 90);
  const best = INDEX.terms_[place].length ? named(label(INDEX.best_source[place], INDEX.best_term[place]), {}, 90) : "no term";
  return el("span", { class: "dim" }, INDEX.named ? "no name; " : "", best);
}

function entry(item) {
  const { place, term } = item;
  const number = INDEX.feature[place];
  const mine = number === chosen.feature;
  const confidence = INDEX.confidence[place];
  const none = INDEX.q[place] === null ? "–" : NOT_RUN;
  const write = (value) => (value === null ? el("span", { class: "dim" }, none) : chance(value));
  return el("tr", { "data-feature": number, class: mine ? "mine" : null },
    el("td", { class: "n" }, el("a", { href: `#feature-${number}`, "aria-current": mine ? "true" : null }, String(number))),
    el("td", { class: "what" }, el("span", { class: "title" }, heading(item)),
      el("span", { class: "below" }, term ? el("mark", {}, named(label(...term), {}, 70)) : firstGenes(item))),
    el("td", { class: "n", "data-label": "confidence" }, confidence === null ? el("span", { class: "dim" }, INDEX.named ? "–" : NOT_RUN) : [fixed(confidence), bar(confidence, 1)]),
    el("td", { class: "n", "data-label": "q" }, INDEX.q[place] === null ? el("span", { class: "dim" }, "–") : chance(INDEX.q[place])),
    el("td", { class: "n", "data-label": "like genes" }, write(INDEX.null_p[place])),
    el("td", { class: "n", "data-label": "others" }, write(INDEX.q_shown[place])));
}

function head() {
  const key = sortKey();
  const down = chosen.sort === null ? key === "confidence" : chosen.descending;
  return el("thead", {}, el("tr", {}, COLUMNS.map((column) =>
    el("th", { scope: "col", class: column.class, title: column.title, "aria-sort": key === column.key ? (down ? "descending" : "ascending") : "none" },
      el("button", { type: "button", "data-sort": column.key }, column.text)))));
}

export function drawList() {
  shown = matching();
  const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
  chosen.page = Math.min(Math.max(chosen.page, 0), last);
  const from = chosen.page * PAGE;
  const here = shown.slice(from, from + PAGE);
  document.getElementById("rows").replaceChildren(el("caption", {}, "Features"), head(), el("tbody", {}, here.map(entry)));
  const all = INDEX.feature.length;
  const write = (count) => count.toLocaleString("en");
  const silent = INDEX.of - all;
  document.getElementById("count").textContent = shown.length === all
    ? `All ${write(all)} features that fire${silent > 0 ? `; ${write(silent)} do not` : ""}.`
    : `${write(shown.length)} of ${write(all)} features${shown.length ? "" : ": none has that in its name, genes or significant terms"}.`;
  document.getElementById("at").textContent = shown.length ? `${write(from + 1)}–${write(from + here.length)} of ${write(shown.length)}` : "";
  document.getElementById("pages").hidden = last === 0;
  document.getElementById("before").disabled = chosen.page === 0;
  document.getElementById("after").disabled = chosen.page === last;
}

/** Go to another page of the list. */
export function turn(by) {
  chosen.page += by;
  drawList();
  document.getElementById("list").scrollTop = 0;
  document.querySelector("#rows tbody a")?.focus({ preventScroll: true });
  document.getElementById("count").scrollIntoView({ block: "nearest" });
}

/** The feature before or after one in the list; null at its ends. */
export function beside(number, by) {
  const at = shown.findIndex((item) => INDEX.feature[item.place] === number);
  return at < 0 ? null : INDEX.feature[shown[at + by]?.place] ?? null;
}

/** Turn to the page on which a feature stands, and mark it. */
export function reveal(number) {
  const at = shown.findIndex((item) => INDEX.feature[item.place] === number);
  if (at >= 0) chosen.page = Math.floor(at / PAGE);
  drawList();
  document.querySelector("#rows tr.mine")?.scrollIntoView({ block: "nearest" });
}

export function sortBy(key) {
  const column = COLUMNS.find((one) => one.key === key);
  chosen.descending = sortKey() === key ? !(chosen.sort === null ? key === "confidence" : chosen.descending) : Boolean(column.descending);
  chosen.sort = key;
  chosen.page = 0;
  drawList();
  document.querySelector(`#rows [data-sort="${key}"]`).focus();
}

/** Put the focus on the link of a row so many further. */
export function step(by) {
  const links = [...document.querySelectorAll("#rows tbody a")];
  const at = links.indexOf(document.activeElement);
  links[at < 0 ? 0 : Math.max(0, Math.min(links.length - 1, at + by))]?.focus();
}
