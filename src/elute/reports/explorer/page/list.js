// The list: all features in their order, of which those in sight are in the page.

const BEYOND = 4; // rows above and below those in sight
const PRINTED = 200; // rows that go on paper
const ROW = { wide: 46, narrow: 110 }; // pixels; the style sheet has the same

const cardRows = matchMedia("(max-width: 719px)");
const list = { site: null, places: new Uint32Array(0), found: null, columns: [], active: -1, drawn: new Map(), paper: false, frame: 0 };

function rowHeight() {
  return cardRows.matches && !list.paper ? ROW.narrow : ROW.wide;
}

function rowOf(at) {
  const { site, places, columns, found } = list;
  const place = places[at];
  const mine = site.numbers[place] === openNumber();
  const why = found ? found.why(place) : null;
  return el("div", {
    role: "row", class: "row", id: `row-${at}`, "aria-rowindex": at + 2, "aria-selected": String(mine), "data-at": at, "--at": at,
    "data-active": at === list.active ? "true" : null,
  }, columns.map((column, i) => el("div", { role: "gridcell", class: `cell ${column.words ? "words" : "n"} is-${column.key}`, "aria-colindex": i + 1,
    "data-label": column.title }, cellOf(site, column.key, place, why))));
}

/** Which rows are in sight of the window, or of the list's own frame where it has one. */
function inSight() {
  const tall = rowHeight();
  if (list.paper) return [0, Math.min(PRINTED, list.places.length)];
  const frame = find("rows").getBoundingClientRect();
  const top = find("body").getBoundingClientRect().top;
  const [from, to] = [Math.max(frame.top, 0), Math.min(frame.bottom, innerHeight)];
  const first = Math.floor((from - top) / tall) - BEYOND;
  const last = Math.ceil((Math.max(to, from + tall) - top) / tall) + BEYOND;
  return [Math.max(0, Math.min(first, list.places.length)), Math.max(0, Math.min(last, list.places.length))];
}

/** Put the rows in sight into the page, and take the others out. */
function drawRows() {
  const [first, last] = inSight();
  const body = find("body");
  const kept = new Map();
  for (const [at, row] of list.drawn) {
    if (at >= first && at < last) kept.set(at, row);
    else row.remove();
  }
  for (let at = first; at < last; at += 1) {
    if (kept.has(at)) continue;
    const row = rowOf(at);
    kept.set(at, row);
    const next = kept.get(at + 1);
    body.insertBefore(row, next ?? null);
  }
  list.drawn = kept;
}

function drawSoon() {
  if (!list.frame) list.frame = requestAnimationFrame(() => {
    list.frame = 0;
    if (!find("list").hidden) drawRows();
  });
}

function drawHead(site) {
  const { key, down } = sorting(site);
  find("head").replaceChildren(el("div", { role: "row", class: "row", "aria-rowindex": 1 }, list.columns.map((column, i) =>
    el("div", { role: "columnheader", class: `cell ${column.words ? "words" : "n"} is-${column.key}`, "aria-colindex": i + 1, title: column.what,
      "aria-sort": key === column.key ? (down ? "descending" : "ascending") : "none" },
    el("button", { type: "button", "data-sort": column.key }, column.title)))));
}

/** How many there are, in words that are read aloud. */
function drawCount(site) {
  const write = num;
  const shown = list.places.length;
  const cut = site.info.features > site.rows ? ` most frequent of ${write(site.info.features)}` : "";
  const fire = known(site.info.alive) ? `, of which ${write(site.info.alive)} fire` : "";
  const where = site.has("found") && !site.found ? " Terms are still being read." : "";
  const none = shown ? "" : chosen.q.trim() ? ": none has that among its genes, cell types, terms or names" : ": none is all of that";
  const told = shown === site.rows ? `All ${write(site.rows)}${cut} features${cut ? "" : fire}` : `${write(shown)} of ${write(site.rows)} features${none}`;
  find("count").textContent = `${told}.${chosen.q ? where : ""}`;
}

/** How many letters of the page's size fit beside one another; on cards all columns have room. */
function roomForColumns() {
  const wide = find("rows").clientWidth;
  return cardRows.matches || !wide ? Infinity : wide / parseFloat(getComputedStyle(document.documentElement).fontSize);
}

/** The list has more room, or less. */
function followRoom() {
  const { site, columns } = list;
  if (!site || find("list").hidden || list.paper) return;
  const keys_ = (some) => some.map((column) => column.key).join();
  if (keys_(shownColumns(site, roomForColumns())) !== keys_(columns)) drawList(site);
  else drawSoon();
}

/** Draw the list as the address asks for it. */
function drawList(site) {
  const grid = find("rows");
  list.site = site;
  list.found = searched(site, chosen.q);
  list.places = ordered(site, passing(site), list.found);
  list.columns = shownColumns(site, roomForColumns());
  list.active = list.places.findIndex((place) => site.numbers[place] === openNumber());
  grid.style.setProperty("--columns", list.columns.map(widthOf).join(" "));
  grid.style.setProperty("--least", `${leastWidth(list.columns)}rem`);
  grid.setAttribute("aria-rowcount", list.places.length + 1);
  grid.setAttribute("aria-colcount", list.columns.length);
  grid.removeAttribute("aria-activedescendant");
  find("body").style.setProperty("--rows", list.places.length);
  find("body").replaceChildren();
  list.drawn = new Map();
  drawHead(site);
  drawCount(site);
  drawRows();
}

/** To the top, as after a search. */
function toTop() {
  find("rows").scrollTop = 0;
}

/** Mark the row of the open feature, without drawing the others anew. */
function markRow({ scroll = true } = {}) {
  for (const [at, row] of list.drawn) row.setAttribute("aria-selected", String(list.site.numbers[list.places[at]] === openNumber()));
  const at = list.places.findIndex((place) => list.site.numbers[place] === openNumber());
  if (at >= 0) moveTo(at, { scroll });
}

/** Make a row the active one, and bring it into sight. */
function moveTo(at, { scroll = true } = {}) {
  if (!list.places.length) return;
  list.drawn.get(list.active)?.removeAttribute("data-active");
  list.active = Math.max(0, Math.min(list.places.length - 1, at));
  if (scroll) bringIntoSight(list.active);
  drawRows();
  list.drawn.get(list.active)?.setAttribute("data-active", "true");
  find("rows").setAttribute("aria-activedescendant", `row-${list.active}`);
}

function bringIntoSight(at) {
  const grid = find("rows");
  const tall = rowHeight();
  const own = getComputedStyle(grid).overflowY !== "visible" && grid.scrollHeight > grid.clientHeight + 1;
  if (own) {
    const head = find("head").offsetHeight;
    const [top, room] = [at * tall, grid.clientHeight - head];
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + tall > grid.scrollTop + room) grid.scrollTop = top + tall - room;
    return;
  }
  const top = find("body").getBoundingClientRect().top + at * tall;
  const free = find("top").getBoundingClientRect().bottom > 0 ? 8 : 60;
  if (top < free) scrollBy(0, top - free);
  else if (top + tall > innerHeight) scrollBy(0, top + tall - innerHeight + 8);
}

/** The number of the feature so many rows from the open one in the list; null at its ends. */
function neighbour(number, by) {
  const at = list.places.findIndex((place) => list.site.numbers[place] === number);
  const place = at < 0 ? undefined : list.places[at + by];
  return place === undefined ? null : list.site.numbers[place];
}

/** The number of the active row, else of the first. */
function activeNumber() {
  const place = list.places[Math.max(0, list.active)];
  return place === undefined ? null : list.site.numbers[place];
}

/** How many rows a page of the list has. */
function pageRows() {
  return Math.max(1, Math.floor(Math.min(find("rows").clientHeight, innerHeight) / rowHeight()) - 1);
}

/** On paper the rows follow one another. */
function printList(paper) {
  list.paper = paper;
  if (!list.site || find("list").hidden) return;
  for (const row of list.drawn.values()) row.remove();
  list.drawn = new Map();
  drawRows();
}

function sortBy(key) {
  const now = sorting(list.site);
  const down = now.key === key ? !now.down : largestFirst(list.site, key);
  go({ sort: `${down ? "-" : ""}${key}` }, { replace: true });
  toTop();
  document.querySelector(`#head [data-sort="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** Let the list be scrolled, clicked and sorted. */
function listenToList({ open }) {
  find("rows").addEventListener("scroll", drawSoon, { passive: true });
  addEventListener("scroll", drawSoon, { passive: true });
  new ResizeObserver(followRoom).observe(find("rows"));
  cardRows.addEventListener("change", () => list.site && drawList(list.site));
  find("rows").addEventListener("click", (event) => {
    const sort = event.target.closest("[data-sort]");
    const row = event.target.closest("[data-at]");
    if (sort) sortBy(sort.dataset.sort);
    else if (row && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
      event.preventDefault();
      open(list.site.numbers[list.places[Number(row.dataset.at)]]);
    }
  });
}
