// The page as a whole: what is drawn when the address changes, controls, keys.

const stacked = matchMedia("(max-width: 1079px)");
const KEYS_TOLD = [["/", "search"], ["← ↑ → ↓", "from node to node, in the graph"], ["Enter", "open the node"], ["p", "pin or unpin it"], ["x", "pick it for a supernode"], ["e", "expand or fold a supernode"],
  ["+ −", "larger, smaller"], ["1 2 3", "graph, layers, scores"], ["Esc", "close what is open"], ["?", "these keys"]];
let drawnPanelFor = null;

function drawTop() {
  find("title").textContent = GRAPH.title;
  const now = chosen.view || "graph";
  find("views").replaceChildren(...Object.entries(VIEWS).map(([key, text]) => el("a", { href: addressOf({ view: key }), "aria-current": key === now ? "page" : null }, text)));
  find("theme").textContent = document.documentElement.dataset.theme === "dark" ? "Light" : "Dark";
  document.body.dataset.view = now;
  document.body.classList.toggle("opened", chosen.node !== "");
}

function drawControls() {
  const now = least();
  find("search").value = chosen.q;
  find("least").value = String(now);
  find("least-told").textContent = `${now} %`;
  find("least").setAttribute("aria-valuetext", `the most influential nodes, which carry ${now} percent`);
  find("links").value = chosen.links || "node";
  find("order").value = columnOrder();
  find("errors").checked = chosen.errors !== "no";
  find("errors").closest("label").hidden = !GRAPH.hasErrors;
  find("pinned-only").checked = chosen.only === "pins";
}

function drawLegend() {
  const kinds = [["feature", "feature"], ["token", "input"], ["output", "output"], ["group", "supernode"], ...(GRAPH.hasErrors ? [["error", "error: what no feature explains"]] : [])];
  find("legend").replaceChildren(...kinds.map(([kind, text]) => el("span", {}, el("span", { class: `mark m-${kind}`, "aria-hidden": "true" }), text)),
    el("span", { class: "key plus" }, "adds"), el("span", { class: "key minus" }, "takes away"));
}

/** Draw what the address asks for. */
function follow() {
  wearTheme();
  drawTop();
  const now = chosen.view || "graph";
  find("graph").hidden = now !== "graph";
  find("layers").hidden = now !== "layers";
  find("scores").hidden = now !== "scores";
  if (now === "layers") drawLayers();
  else if (now === "scores") drawScores();
  else followGraph();
}

function followGraph() {
  drawControls();
  const fresh = refreshUnits();
  const sized = find("canvas").width !== Math.round(find("scroll").clientWidth * look.ratio);
  if (fresh || sized) {
    look.keyed = look.keyed ? unitOf(look.keyed.key) : null;
    arrange();
  } else paint();
  const panelFor = JSON.stringify([chosen.node, chosen.at, chosen.q, chosen.pins, chosen.groups, chosen.open, chosen.q && chosen.least]);
  if (panelFor !== drawnPanelFor) {
    const [before] = JSON.parse(drawnPanelFor ?? '[""]');
    drawnPanelFor = panelFor;
    const kept = before === chosen.node ? focusIn("panel") : null;
    const came = find("panel").contains(document.activeElement);
    drawPanel();
    drawBeside();
    if (before !== chosen.node) shownAnew(came);
    else kept?.();
  }
  drawMaker();
}

/** Another node is open: it is brought into sight, in the graph and, on a telephone, below it. */
function shownAnew(came) {
  const unit = unitOf(chosen.node);
  find("side").scrollTop = 0;
  if (unit) reveal(unit);
  if (came) find("panel").querySelector("h2, h3")?.focus({ preventScroll: true });
  if (stacked.matches && document.body.dataset.read) find(chosen.node ? "side" : "bar").scrollIntoView({ block: "start" });
}

/** Remember which control of a part has the focus, for when the part was drawn anew. */
function focusIn(id) {
  const all = () => [...find(id).querySelectorAll("a, button, input, [tabindex]")];
  const at = all().indexOf(document.activeElement);
  return at < 0 ? null : () => all()[at]?.focus({ preventScroll: true });
}

function followSafely() {
  try {
    follow();
    find("fault").hidden = true;
  } catch (error) {
    find("fault").hidden = false;
    find("fault").textContent = "This part of the page could not be drawn.";
    throw error;
  }
}

/** Keys that work anywhere but in a field; whether one did something. */
function pageKeys({ key }) {
  const viewed = Object.keys(VIEWS)[Number(key) - 1];
  if (key === "/") {
    if (chosen.view) go({ view: "" });
    find("search").select();
  } else if (viewed) go({ view: viewed === "graph" ? "" : viewed });
  else if (key === "?") find("help").showModal();
  else if (key === "+" || key === "=") zoom(1.25);
  else if (key === "-") zoom(0.8);
  else if (key === "Escape" && picked.size) {
    picked.clear();
    drawMaker();
    paint();
  } else if (key === "Escape") {
    look.keyed = null;
    showTip(null);
    go({ node: "", at: "", cell: "" });
  } else return false;
  return true;
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || find("help").open) return;
  const { target, key } = event;
  const field = /^(?:INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && target.type !== "checkbox";
  let did = false;
  if (field) {
    if (target === find("search") && key === "Escape" && target.value) {
      go({ q: "" }, { replace: true });
      did = true;
    } else if (key === "Escape" || (target === find("search") && key === "Enter")) {
      find("scroll").focus();
      did = true;
    }
  } else did = (target === find("scroll") && graphKeys(event)) || pageKeys(event);
  if (did) event.preventDefault();
}

function fillSelects() {
  for (const [id, options] of [["links", LINKS], ["order", ORDERS]]) find(id).replaceChildren(...Object.entries(options).map(([value, text]) => el("option", { value }, text)));
}

function listen() {
  fillSelects();
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  find("search").addEventListener("input", (event) => go({ q: event.target.value, node: "" }, { replace: true }));
  find("least").addEventListener("input", (event) => go({ least: event.target.value }, { replace: true }));
  find("links").addEventListener("change", (event) => go({ links: event.target.value }, { replace: true }));
  find("order").addEventListener("change", (event) => go({ order: event.target.value }, { replace: true }));
  find("errors").addEventListener("change", (event) => go({ errors: event.target.checked ? "" : "no" }, { replace: true }));
  find("pinned-only").addEventListener("change", (event) => go({ only: event.target.checked ? "pins" : "" }, { replace: true }));
  find("theme").addEventListener("click", () => go({ theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark" }, { replace: true }));
  find("save-graph").addEventListener("click", saveGraph);
  find("help-open").addEventListener("click", () => find("help").showModal());
  find("help-keys").replaceChildren(el("dl", { class: "keys-list" }, KEYS_TOLD.map(([key, text]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)))));
  listenToCanvas();
  listenToBeside();
  listenToMaker();
  addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-save]");
    if (button) saveFrom(button);
  });
  addEventListener("keydown", keys);
  for (const event of ["hashchange", "popstate"]) addEventListener(event, () => readAddress() && followSafely());
  prefersLight.addEventListener("change", followSafely);
  document.addEventListener("elute:theme", () => {
    readInk();
    paint();
  });
  addEventListener("beforeprint", () => { wearTheme(true); readInk(); paintNow(); });
  addEventListener("afterprint", () => { wearTheme(); readInk(); paintNow(); });
  onChange(followSafely);
}

await readGraph();
readAddress();
wearTheme();
readInk();
refreshUnits();
drawHeadline();
drawLegend();
listen();
followSafely();
document.body.dataset.read = "true";
