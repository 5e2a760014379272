// The page as a whole: what the address asks for is drawn, keys, paper, and how long things took.

const stacked = matchMedia("(max-width: 1079px)");
let current = null; // the site that is shown
let drawnAs = {}; // what each part was last drawn for
let following = Promise.resolve();

/** Measure from some time to when the page is painted. */
function measure(name, start) {
  const done = () => setTimeout(() => performance.measure(name, { start, end: performance.now() }));
  if (document.visibilityState === "hidden") done();
  else requestAnimationFrame(done);
}

function drawTop() {
  find("run").replaceChildren(named(INFO.run, {}, 80));
  document.title = `${shortened(INFO.run, 80)}: features`;
  find("site").replaceChildren(...INFO.sites.map((one) => el("option", { value: one.key }, shortened(one.name, 60))));
  find("sites").hidden = INFO.sites.length < 2;
  for (const name of ["mark", "reading"]) { // what holds for all of the page, and how its words are to be read
    const said = INFO.sites.map((one) => own(one.extraction, name)).find((text) => typeof text === "string" && text);
    find(name).hidden = !said;
    find(name).textContent = shortened(said ?? "", 300);
  }
}

/** Let the head of the page say where one is. */
function followTop() {
  find("site").value = chosen.site;
  find("views").replaceChildren(...Object.entries(VIEWS).map(([view, title]) =>
    el("a", { href: addressOf({ view }), "aria-current": view === chosen.view ? "page" : null, "data-view": view }, title)));
  const theme = document.documentElement.dataset.theme;
  find("theme").textContent = theme === "dark" ? "Light" : "Dark";
  find("theme").setAttribute("aria-label", `Switch to the ${theme === "dark" ? "light" : "dark"} theme`);
}

/** Whether a part is to be drawn anew for these choices. */
function isNew(part, keys) {
  const now = JSON.stringify(keys);
  if (drawnAs[part] === now) return false;
  drawnAs[part] = now;
  return true;
}

function keysOfList() {
  return [chosen.site, chosen.q, chosen.f, chosen.type, chosen.kind, chosen.lib, chosen.sort, chosen.cols, Boolean(current?.found), Boolean(current?.lists)];
}

/** Show the parts of the view, and hide the others. */
function showParts() {
  const withPanel = openNumber() !== null && (chosen.view === "list" || chosen.view === "map");
  find("list").hidden = chosen.view !== "list";
  find("map").hidden = chosen.view !== "map";
  find("panel").hidden = !withPanel;
  find("compare").hidden = chosen.view !== "compare";
  find("about").hidden = chosen.view !== "about";
  document.body.dataset.view = chosen.view;
  document.body.classList.toggle("open", withPanel);
}

/** Draw whatever the address asks for and is not there yet. */
async function follow() {
  wearTheme();
  const site = await openSite(chosen.site);
  if (site.key !== chosen.site) return;
  const other = current !== site;
  current = site;
  showParts();
  followTop();
  if (other || isNew("controls", [chosen.site, Boolean(site.found)])) drawFilters(site);
  followFilters(site);
  const fresh = isNew("list", keysOfList());
  if (chosen.view === "list") {
    if (fresh || drawnAs.late) drawList(site);
    if (isNew("first", [])) measure("elute:first-list", 0);
    drawnAs.late = false;
    if (!fresh) markRow({ scroll: true });
  } else if (fresh) drawnAs.late = true;
  if (isNew("panel", [chosen.site, chosen.feature, Boolean(site.found)]) && !find("panel").hidden) await drawPanel(site);
  if (find("panel").hidden) drawnAs.panel = null;
  if (chosen.view === "compare" && isNew("compare", [chosen.site, chosen.feature, chosen.with])) await drawCompare(site);
  if (chosen.view === "about" && isNew("about", [chosen.site])) drawAbout(site);
  if (chosen.view === "map") showMaps(find("map"), { site, state: { ...chosen }, open: (place) => open(site.numbers[place]), go: (changes) => go(changes, { replace: true }) });
  else hideMaps();
  if (other) readMore(site);
}

/** A fault is told on the page, in its one sentence. */
function followSafely() {
  following = follow().catch((error) => {
    find("fault").textContent = error.message;
    find("fault").hidden = false;
    throw error;
  });
  return following;
}

function idle() {
  return new Promise((done) => (globalThis.requestIdleCallback ? requestIdleCallback(() => done(), { timeout: 400 }) : setTimeout(done, 30)));
}

/** What the first look does not need: terms, longer lists of genes, cells. */
async function readMore(site) {
  await idle();
  await readFound(site);
  await redraw(site);
  await readLists(site, { between: idle });
  if (chosen.q.trim()) await redraw(site);
  else if (isNew("list", keysOfList())) indexOf(site);
  await idle();
  if (site.has("cells")) await site.block("cells");
  document.body.dataset.read = site.key;
}

async function redraw(site) {
  if (current !== site) return;
  const at = find("rows").scrollTop;
  await followSafely();
  find("rows").scrollTop = at;
}

/** Open a feature as a person does: the panel is read on, the way back leads to the list. */
async function open(number) {
  const start = performance.now();
  go({ feature: String(number), view: chosen.view === "map" ? "map" : "list" });
  await following;
  measure("elute:open", start);
  const panel = find("panel");
  if (stacked.matches) {
    if (chosen.view === "list") scrollTo(0, 0);
    else panel.scrollIntoView({ block: "start" });
  }
  panel.querySelector("h2")?.focus({ preventScroll: true });
}

/** Close the feature; the list has the focus, where it stood. */
async function close() {
  const before = openNumber();
  go({ feature: "" });
  await following;
  if (chosen.view !== "list") return;
  const at = list.places.findIndex((place) => current.numbers[place] === before);
  if (at >= 0) moveTo(at);
  find("rows").focus({ preventScroll: true });
}

function search(text) {
  const start = performance.now();
  go({ q: text, sort: "" }, { replace: true, soon: true });
  following.then(() => {
    toTop();
    drawRows();
    measure("elute:search", start);
  });
}

/** Keys that move in the list; whether one did. */
function listKeys(key) {
  const at = list.active;
  const steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + pageRows(), PageUp: at - pageRows(), Home: 0, End: Infinity };
  if (key === "Enter" && activeNumber() !== null) open(activeNumber());
  else if (key === "ArrowUp" && at <= 0) find("search").focus();
  else if (Object.hasOwn(steps, key)) moveTo(steps[key]);
  else return false;
  return true;
}

/** Keys of the search field; whether one did something. */
function searchKeys(key) {
  if (key === "ArrowDown") {
    find("rows").focus({ preventScroll: true });
    moveTo(Math.max(0, list.active));
  } else if (key === "Enter" && list.places.length) open(current.numbers[list.places[0]]);
  else if (key === "Escape" && find("search").value) {
    find("search").value = "";
    search("");
  } else if (key === "Escape") find("rows").focus({ preventScroll: true });
  else return false;
  return true;
}

/** Keys that work anywhere but in a field; whether one did something. */
function pageKeys(event) {
  const { key, target } = event;
  const fields = /^(?:INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
  if (key === "/" && !fields) {
    if (chosen.view !== "list" || (stacked.matches && openNumber() !== null)) go({ view: "list", ...(stacked.matches ? { feature: "" } : {}) });
    following.then(() => find("search").select());
  } else if (key === "?" && !fields) find("help").showModal();
  else if (key === "Escape" && find("columns").open) find("columns").open = false;
  else if (key === "Escape" && !fields && !find("panel").hidden) close();
  else if ((key === "ArrowLeft" || key === "ArrowRight") && target.closest?.("#panel") && !target.closest(".wide, button, summary") && chosen.view === "list") {
    const other = neighbour(openNumber(), key === "ArrowLeft" ? -1 : 1);
    if (other !== null) open(other);
  } else return false;
  return true;
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || find("help").open) return;
  const inGrid = event.target === find("rows");
  const did = (inGrid && listKeys(event.key)) || (event.target === find("search") && searchKeys(event.key)) || pageKeys(event);
  if (did) event.preventDefault();
}

/** Clicks anywhere that close, copy or save. */
function clicks(event) {
  const on = (selector) => event.target.closest?.(selector);
  if (on("[data-close]")) close();
  if (on("[data-save]")) saveFrom(on("[data-save]"));
  if (on("[data-copy]")) {
    copyText(on("[data-copy]").dataset.copy).then((went) => { find("copied").textContent = went ? "Copied." : "The browser did not let it be copied."; });
  }
  if (!on("#columns")) find("columns").open = false;
}

/** On paper it is light, and the rows follow one another. */
function paper(on) {
  wearTheme(on);
  printList(on);
}

function listen() {
  listenToFilters(() => current);
  listenToList({ open });
  find("search").addEventListener("input", (event) => search(event.target.value));
  find("site").addEventListener("change", (event) => go({ site: event.target.value }));
  find("theme").addEventListener("click", () => {
    go({ theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark" }, { replace: true });
    find("theme").focus();
  });
  find("help-open").addEventListener("click", () => find("help").showModal());
  find("help-keys").replaceChildren(keysList());
  addEventListener("keydown", keys);
  addEventListener("click", clicks);
  for (const event of ["hashchange", "popstate"]) addEventListener(event, () => readAddress() && followSafely());
  prefersLight.addEventListener("change", followSafely);
  matchMedia("print").addEventListener("change", (event) => paper(event.matches));
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
  narrow.addEventListener("change", () => {
    drawnAs.panel = null;
    followSafely();
  });
  onChange(followSafely);
}

readAddress();
wearTheme();
drawTop();
listen();
await followSafely();
document.body.dataset.ready = "true";
