// The page as a whole: what the address names, controls, keys.

import { el } from "./text.js";
import { chosen, INDEX, placeOf, readIndex } from "./data.js";
import { drawList, reveal, sortBy, step, turn } from "./list.js";
import { drawPanel } from "./panel.js";
import { save } from "./pictures.js";

const find = (id) => document.getElementById(id);
const stacked = matchMedia("(max-width: 1079px)");

function drawControls() {
  const counts = INDEX.sources.map(() => 0);
  for (const list of INDEX.sources_) for (const source of new Set(list)) counts[source] += 1;
  const some = INDEX.sources.map((source, i) => [String(i), `${source.title} (${counts[i]})`]).filter((_, i) => counts[i]);
  const options = (entries, now) => entries.map(([value, text]) => el("option", { value, selected: value === now }, text));
  find("source").replaceChildren(...options([["", "any or none"], ...some], chosen.source));
  const states = [["", "all"], ["found", "with a term"], ["again", `again on ${INDEX.others}`], ["named", "named"], ["nothing", "with no term"]];
  find("show").replaceChildren(...options(states, chosen.show));
}

let followed = null; // the address as it was last drawn

/** Draw the view that the address asks for: a feature, the list, or a place in the summary; whether it was another one. */
async function follow() {
  const text = location.hash.slice(1);
  if (text === followed) return false; // the event comes after what was done at once: it must not take the focus away
  followed = text;
  const found = /^feature-(\d{1,9})$/.exec(text);
  const features = Boolean(found) || text === "features";
  find("features").hidden = !features;
  find("summary").hidden = features;
  document.body.classList.toggle("browsing", features);
  for (const [id, here] of [["to-summary", !features], ["to-features", features]]) find(id).setAttribute("aria-current", here ? "page" : "false");
  if (!features) {
    find(text)?.scrollIntoView();
    return true;
  }
  chosen.feature = found ? Number(found[1]) : null;
  if (placeOf(chosen.feature) !== undefined) reveal(chosen.feature);
  else drawList();
  await drawPanel();
  if (found && stacked.matches) scrollTo(0, find("panel").offsetTop - 8);
  return true;
}

/** Go to another view at once. */
function go(text) {
  location.hash = text;
  return follow();
}

/** Back to the list, where the feature stands that was open. */
async function close() {
  const before = chosen.feature;
  if (stacked.matches && before !== null) await go("features");
  document.querySelector(`#rows tr[data-feature="${before}"] a`)?.focus();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target === find("search");
  const inList = Boolean(event.target.closest?.("#rows tbody"));
  if (event.key === "/" && !typing && event.target.tagName !== "SELECT") {
    if (find("features").hidden) go("features");
    find("search").focus();
  } else if (find("features").hidden) return;
  else if (event.key === "Escape" && typing && find("search").value) search("");
  else if (event.key === "Escape") close();
  else if ((typing || inList) && event.key === "ArrowDown") step(1);
  else if (inList && event.key === "ArrowUp") step(-1);
  else if (event.key === "Enter" && typing) document.querySelector("#rows tbody a")?.click();
  else return;
  event.preventDefault();
}

function search(text) {
  find("search").value = chosen.query = text;
  Object.assign(chosen, { sort: null, descending: false, page: 0 });
  drawList();
}

find("controls").addEventListener("submit", (event) => event.preventDefault());
find("search").addEventListener("input", (event) => search(event.target.value));
for (const id of ["source", "show"]) {
  find(id).addEventListener("change", (event) => {
    Object.assign(chosen, { [id]: event.target.value, page: 0 });
    drawList();
  });
}
find("rows").addEventListener("click", (event) => {
  const sort = event.target.closest("[data-sort]");
  const row = event.target.closest("tbody tr");
  if (sort) sortBy(sort.dataset.sort);
  else if (row && !event.target.closest("a")) location.hash = `feature-${row.dataset.feature}`;
});
find("before").addEventListener("click", () => turn(-1));
find("after").addEventListener("click", () => turn(1));
addEventListener("click", (event) => {
  if (event.target.id === "back") close();
  const button = event.target.closest?.("[data-save]");
  if (button) save(button);
});
addEventListener("keydown", keys);
addEventListener("hashchange", async () => {
  if ((await follow()) && chosen.feature !== null && !find("features").hidden) document.querySelector("#panel h2")?.focus({ preventScroll: true });
});

await readIndex();
drawControls();
await follow();
document.body.dataset.ready = "true";
