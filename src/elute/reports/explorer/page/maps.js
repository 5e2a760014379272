// The view of maps: features beside cells, what they are coloured by, what a lasso holds, and what the address says of it.

const MAP_SIDES = ["features", "cells"];
const MAP_CHOSEN = "chosen"; // cells coloured by how strongly the features of the lasso fire in them
let mapNow = null; // the maps that are shown

/** Show the maps of a site in an element, as the state asks for; resolves when they are drawn. */
async function showMaps(element, { site, state, open, go }) {
  if (mapNow?.site.key !== site.key || mapNow?.element !== element) {
    mapNow?.destroy();
    mapNow = new Maps(element, { site, open, go });
  }
  const maps = mapNow;
  maps.open = open;
  maps.go = go;
  await maps.ready;
  if (maps === mapNow) await maps.follow(state);
}

/** The view is left: what floats over it goes. */
function hideMaps() {
  for (const pane of mapNow?.shown() ?? []) pane.untell();
}

class Maps {
  constructor(element, { site, open, go }) {
    Object.assign(this, { element, site, open, go, panes: {}, state: {}, cells: null, chosen: null, started: null, before: "", lassoed: null });
    this.status = el("p", { class: "map-aside", role: "status", "aria-live": "polite" });
    this.results = el("section", { class: "map-chosen", "aria-label": "What the lasso holds", hidden: true });
    this.ready = this.build();
  }

  async build() {
    const { site, element } = this;
    const [places, cells] = await Promise.all(["map", "cells"].map((name) => (site.has(name) ? site.block(name) : null)));
    this.cells = cells;
    this.panes.features = new MapPane(this, { side: "features", block: places, rows: site.rows });
    this.panes.cells = new MapPane(this, { side: "cells", block: cells, rows: cells?.rows ?? 0 });
    const tabs = el("div", { class: "map-tabs", role: "group", "aria-label": "Which map" }, MAP_SIDES.map((side) =>
      el("button", { type: "button", "data-side": side, click: () => this.go({ side }) }, side === "cells" ? "Cells" : "Features")));
    element.replaceChildren(el("div", { class: "map-frame" },
      el("div", { class: "map-both" }, tabs, this.panes.features.node, this.panes.cells.node, this.results, this.status)));
    for (const pane of this.shown()) pane.start();
    this.ending = new AbortController();
    const wear = () => this.wear();
    document.addEventListener("elute:theme", wear, { signal: this.ending.signal });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", wear, { signal: this.ending.signal });
    addEventListener("beforeprint", () => this.shown().forEach((pane) => pane.scatter.paint()), { signal: this.ending.signal });
    this.watch = new MutationObserver(wear);
    this.watch.observe(document.documentElement, { attributes: true });
  }

  shown() {
    return Object.values(this.panes).filter((pane) => pane.drawable);
  }

  destroy() {
    this.gone = true;
    this.ending?.abort();
    this.watch?.disconnect();
    for (const pane of this.shown()) pane.stop();
    this.element.replaceChildren();
  }

  say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  /** The colours that the page wears. */
  wear() {
    const style = getComputedStyle(document.documentElement);
    const value = (name, other) => style.getPropertyValue(name).trim() || other;
    const ground = el("i");
    ground.style.color = value("--ground", style.backgroundColor || "#ffffff");
    this.element.append(ground);
    const theme = mapThemeOf(getComputedStyle(ground).color);
    ground.remove();
    const ink = { text: value("--text", "#888"), ground: value("--ground", "#888"), mark: value("--mark", "#b3591d") };
    for (const pane of this.shown()) pane.wear(theme, ink);
  }

  /** What was chosen in the view: the time counts from here. */
  choose(changes) {
    this.started = performance.now();
    this.go(changes);
  }

  /** Make the view what the state asks for. */
  async follow(state) {
    this.state = { ...state };
    const { site } = this;
    const side = state.side || (this.panes.features.drawable || !this.panes.cells.drawable ? "features" : "cells");
    this.element.querySelector(".map-both").dataset.side = side;
    for (const button of this.element.querySelectorAll(".map-tabs button")) {
      button.setAttribute("aria-pressed", button.dataset.side === side ? "true" : "false");
    }
    if (!this.worn) {
      this.worn = true;
      this.wear();
    }
    this.followLasso(state.lasso ?? "");
    const place = state.feature ? site.place(state.feature) : undefined;
    if (this.panes.features.drawable) this.panes.features.scatter.mark(place ?? -1);
    await Promise.all([this.colourCells(state), this.colourFeatures(state)]);
    this.started = null;
  }

  async colourFeatures(state) {
    const pane = this.panes.features;
    const asked = state.tint || mapUsualFeatures(this.site);
    if (pane.drawable && asked !== pane.colouring?.asked) await pane.colour(mapColourFeatures(this.site, asked));
  }

  async colourCells(state) {
    const pane = this.panes.cells;
    if (!pane.drawable) return;
    const asked = state.color || mapUsualCells(this.site, this.cells);
    if (asked === MAP_CHOSEN && this.lassoed?.side === "features") return; // the lasso colours them when it knows
    const usual = asked === MAP_CHOSEN ? mapUsualCells(this.site, this.cells) : asked;
    if (usual === pane.colouring?.asked) return;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    let colouring;
    try {
      colouring = await mapColourCells(this.site, this.cells, usual);
    } catch (error) {
      colouring = { asked: usual, problem: error.message };
    }
    if (turn === this.turn && !this.gone) await pane.colour(colouring);
  }

  /** A lasso was drawn: the address says so, and what follows from the address is drawn. */
  drawn(side, path) {
    const lasso = mapWriteLasso(side, path);
    if (side === "features" && this.state.color !== MAP_CHOSEN) this.before = this.state.color ?? "";
    const back = this.state.color === MAP_CHOSEN ? this.before : this.state.color ?? "";
    this.byHand = true;
    this.go({ lasso, color: side === "features" && this.cells && this.site.has("codes-0") ? MAP_CHOSEN : back });
  }

  clear() {
    const { color } = this.state;
    this.go({ lasso: "", ...(color === MAP_CHOSEN ? { color: this.before } : {}) });
  }

  /** Choose what the address's lasso holds, unless it is chosen already. */
  followLasso(text) {
    if (text === (this.lassoed?.text ?? "")) return;
    const read = mapReadLasso(text);
    const pane = read && this.panes[read.side];
    for (const each of this.shown()) {
      each.scatter.setOutline(null);
      each.select(null);
    }
    this.results.hidden = true;
    this.results.replaceChildren();
    this.lassoed = null;
    if (!pane?.drawable) return;
    const { flags, count } = mapInside(pane.scatter.units, read.path);
    this.lassoed = { text, side: read.side, flags, count };
    pane.scatter.setOutline(read.path);
    pane.select(count ? flags : null);
    this.tellLasso().catch((error) => this.say(error.message));
  }

  /** The results of the lasso, below the maps. */
  async tellLasso() {
    const lassoed = this.lassoed;
    const { side, flags, count } = lassoed;
    const going = () => this.lassoed === lassoed && !this.gone;
    const head = el("h2", {}, `${num(count)} ${side} chosen `);
    const frame = (...content) => this.results.replaceChildren(el("div", { class: "map-head" }, head,
      el("button", { type: "button", click: () => this.clear() }, "Clear ", el("kbd", {}, "Esc"))), ...content.flat());
    this.results.hidden = false;
    if (!count) {
      frame(el("p", { class: "note" }, `The lasso holds no ${side}.`));
      this.say(`The lasso holds no ${side}.`);
      return;
    }
    frame(el("p", { class: "note" }, "Reading activations…"));
    const tell = (text) => { this.results.lastElementChild.textContent = text; };
    const told = side === "cells" ? await this.tellCells({ flags, count, going, tell }) : await this.tellFeatures({ flags, count, going, tell });
    if (!going() || !told) return;
    frame(told.content);
    if (this.byHand) head.scrollIntoView({ block: "nearest" });
    this.byHand = false;
    this.say(`${num(count)} ${side} chosen. ${told.words}`);
  }

  async tellCells({ flags, count, going, tell }) {
    const { site, cells } = this;
    const few = Math.min(count, flags.length - count) < MAP_FEW ? `Features are compared where ${MAP_FEW} cells or more are inside, and as many outside.` : "";
    const none = mapCodeBlocks(site).length ? few : "This page holds no activations of its features.";
    if (none) return { content: [el("p", { class: "note" }, mapWhoWords(cells, flags)), el("p", {}, none)], words: none };
    const found = await mapHigherInside(site, { flags, count, going, tell });
    if (!found) return null;
    const held = new Uint8Array(site.rows);
    for (const { place } of found.rows) held[place] = 1;
    if (this.panes.features.drawable && found.rows.length) this.panes.features.select(held);
    const first = found.rows[0];
    const most = first && `${num(found.rows.length)} features are higher there, the first one is feature ${site.numbers[first.place]}.`;
    const words = most ?? "No feature is higher there.";
    return { content: mapCellsChosen(site, cells, { flags, count, found, open: (place) => this.show(place) }), words };
  }

  async tellFeatures({ flags, count, going, tell }) {
    const { site, cells, panes } = this;
    const strength = cells && mapCodeBlocks(site).length ? await mapStrengthOf(site, { flags, n: cells.rows, going, tell }) : null;
    if (!going()) return null;
    if (strength && panes.cells.drawable && this.state.color === MAP_CHOSEN) {
      await panes.cells.colour({ ...mapAboveZero(`${MAP_CHOSEN}/${this.lassoed.text}`, "The chosen features", strength.mine), of: "chosen" });
    }
    const content = mapFeaturesChosen(site, cells, { flags, count, strength, open: (place) => this.show(place) });
    return { content, words: strength ? "The cells are coloured by how strongly they fire." : "" };
  }

  /** Open a feature, and colour the cells by it. */
  show(place) {
    const color = `feature:${this.site.numbers[place]}`;
    const can = this.panes.cells.drawable && this.site.has("codes-0");
    if (can && this.state.color !== color) this.choose({ color });
    this.open(place);
  }
}
