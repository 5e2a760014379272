// The index: a search over both tables, a choice of verdicts, and columns that sort. The address keeps what is asked.

const find = (id) => document.getElementById(id);
const lists = ["genes", "codes"].map(find).filter(Boolean);
const rowsOf = (list) => [...list.tBodies[0].rows];
let sorted = null; // which list, which column, and whether downwards

function words() {
  return find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
}

/** Hide what was not asked for, and say how much is left. */
function sift() {
  const asked = words();
  const verdict = find("verdict").value;
  const told = lists.map((list) => {
    const rows = rowsOf(list);
    let left = 0;
    for (const row of rows) {
      const fits = asked.every((word) => row.dataset.find.includes(word));
      const judged = !verdict || list.id !== "genes" || row.dataset.find.endsWith(` ${verdict}`);
      row.hidden = !(fits && judged);
      left += row.hidden ? 0 : 1;
    }
    return left === rows.length ? `all ${rows.length.toLocaleString("en")} ${list.id}` : `${left.toLocaleString("en")} of ${rows.length.toLocaleString("en")} ${list.id}`;
  });
  find("count").textContent = `${told.join(", ")}.`;
  keep();
}

/** Order a list by a column; what has no value comes last either way. */
function sort(list, key, down) {
  const at = [...list.tHead.rows[0].cells].findIndex((cell) => cell.querySelector("button")?.dataset.sort === key);
  if (at < 0) return;
  const rows = rowsOf(list).map((row) => ({ row, value: row.cells[at].dataset.value, place: Number(row.dataset.at) }));
  const numbers = rows.every(({ value }) => value === undefined || value === "" || Number.isFinite(Number(value)));
  const compare = (a, b) => (numbers ? Number(a.value) - Number(b.value) : a.value.localeCompare(b.value, "en", { numeric: true }));
  const absent = ({ value }) => (value === undefined || value === "" ? 1 : 0);
  rows.sort((a, b) => absent(a) - absent(b) || (absent(a) ? 0 : (down ? -1 : 1) * compare(a, b)) || a.place - b.place);
  list.tBodies[0].append(...rows.map(({ row }) => row));
  for (const cell of list.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  list.tHead.rows[0].cells[at].setAttribute("aria-sort", down ? "descending" : "ascending");
  sorted = { list: list.id, key, down };
}

function press(list, button) {
  const cell = button.closest("th");
  const before = cell.getAttribute("aria-sort");
  const first = cell.classList.contains("n"); // numbers begin with the largest, words with the first
  sort(list, button.dataset.sort, before ? before === "ascending" : first);
  keep();
}

function keep() {
  const asked = new URLSearchParams();
  if (find("search").value) asked.set("q", find("search").value);
  if (find("verdict").value) asked.set("verdict", find("verdict").value);
  if (sorted) asked.set("sort", `${sorted.list}.${sorted.key}.${sorted.down ? "down" : "up"}`);
  const text = asked.toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : location.pathname);
}

/** Do as the address says. */
function follow() {
  const asked = new URLSearchParams(location.hash.slice(1));
  find("search").value = asked.get("q") ?? "";
  find("verdict").value = asked.get("verdict") ?? "";
  const [name, key, way] = (asked.get("sort") ?? "").split(".");
  const list = lists.find(({ id }) => id === name);
  if (list) sort(list, key, way === "down");
  sift();
}

find("controls").hidden = false;
find("controls").addEventListener("submit", (event) => event.preventDefault());
find("search").addEventListener("input", sift);
find("verdict").addEventListener("change", sift);
for (const list of lists) {
  for (const button of list.querySelectorAll("[data-sort]")) button.addEventListener("click", () => press(list, button));
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "")) return;
  event.preventDefault();
  find("search").focus();
});
addEventListener("hashchange", follow);
follow();
document.body.dataset.read = "";
