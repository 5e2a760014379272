// One of the two maps: its head, its points with what hovers over them, its legend.

const MAP_TELL = { features: "Each point is a feature; near ones have similar directions.", cells: "Each point is a cell; near ones are alike." };
const MAP_HELP = "Arrow keys move the map, plus and minus zoom, 0 shows all, Enter takes the point at the middle, "
  + "S chooses what is in view, L draws a lasso with the pointer, Esc clears.";

/** Words from the data as a sentence, with a space after it. */
function mapSentence(told) {
  const text = told ? String(told) : "";
  return text ? `${text.slice(0, 1).toUpperCase()}${text.slice(1).replace(/\.$/, "")}. ` : "";
}

class MapPane {
  constructor(maps, { side, block, rows }) {
    Object.assign(this, { maps, side, rows, colouring: null, theme: "dark", alone: null, block });
    this.drawable = Boolean(block?.has("x") && block.has("y") && rows);
    this.head = el("h2", {}, side === "cells" ? "Cells" : "Features", " ", el("small", {}, this.size()));
    this.legend = el("div", { class: "map-legend" });
    this.node = el("section", { class: "map-pane", "data-side": side, "aria-label": `Map of ${side}` },
      el("div", { class: "map-head" }, this.head, this.drawable ? this.control() : null));
    if (!this.drawable) {
      this.node.append(el("p", { class: "note" }, rows ? `No map of the ${side} was made.` : `This page holds no ${side}.`));
      return;
    }
    this.canvas = el("canvas", { class: "map-points", tabindex: 0, role: "application", "aria-roledescription": "map",
      "aria-label": `Map of ${num(rows)} ${side}`, "aria-describedby": `map-help-${side}` });
    this.tip = el("div", { class: "map-tip", hidden: true });
    this.field = el("div", { class: "map-field" }, this.canvas, this.tools(), this.tip);
    this.node.append(this.field, this.legend, el("p", { class: "note" }, this.made()), el("p", { class: "map-aside", id: `map-help-${side}` }, MAP_HELP));
  }

  /** How many points there are, and of how many. */
  size() {
    if (this.side === "features") return num(this.rows);
    const { of } = this.maps.site.info.cells ?? {};
    return of > this.rows ? `${num(this.rows)} of ${num(of)}` : num(this.rows);
  }

  /** How the map came to be. */
  made() {
    const { info } = this.maps.site;
    const how = this.side === "cells" ? info.cells?.map : info.feature_map;
    const drawn = this.side === "cells" && info.cells?.sampled ? " The cells shown are a sample of all, drawn by type and donor." : "";
    const flat = ["x", "y"].every((name) => {
      const [low, high] = mapEnds(this.block.column(name).numbers());
      return !(high > low);
    });
    if (flat && this.rows > 1) return `${mapSentence(how)}All of them came to lie at one place: this map tells nothing apart.`;
    return `${mapSentence(how)}${MAP_TELL[this.side]} Distances far across say little.${drawn}`;
  }

  /** The control by which colours are chosen. */
  control() {
    const { maps } = this;
    if (this.side === "cells") {
      const suggest = (text) => mapSuggestions(maps.site, maps.cells, text);
      this.picker = new MapPicker("map-color", { label: "Colour by", suggest, choose: (color) => maps.choose({ color }) });
      return this.picker.node;
    }
    this.select_ = el("select", { id: "map-tint", change: (event) => maps.choose({ tint: event.target.value }) },
      mapFeatureColumns(maps.site).map((name) => el("option", { value: name }, toldOf(maps.site, name).title)));
    return el("div", { class: "map-picker" }, el("label", { for: "map-tint" }, "Colour by"), this.select_);
  }

  tools() {
    const button = (text, label, act, more = {}) => el("button", { type: "button", "aria-label": label, title: label, click: () => act(this.scatter), ...more }, text);
    const hint = `Lasso: draw around ${this.side} to choose them (or drag with Shift)`;
    this.lasso = button("Lasso", hint, (map) => map.setLassoing(!map.lassoing), { "aria-pressed": "false" });
    return el("div", { class: "map-tools", role: "group", "aria-label": `Tools of the map of ${this.side}` },
      button("+", "Zoom in", (map) => map.zoom(1.6)), button("−", "Zoom out", (map) => map.zoom(1 / 1.6)), button("All", "Show all", (map) => map.fit()),
      this.lasso, button("In view", `Choose the ${this.side} that are in view`, (map) => map.takeView()));
  }

  start() {
    const { maps, side } = this;
    const points = { x: this.block.column("x").numbers(), y: this.block.column("y").numbers() };
    this.scatter = new Scatter(this.canvas, { points, on: {
      hover: (i, x, y, keyed) => this.tell(i, x, y, keyed),
      pick: (i) => (side === "features" ? maps.show(i) : this.tell(i, ...this.scatter.toPixels(i), true)),
      lasso: (path) => maps.drawn(side, path),
      clear: () => (this.alone === null ? maps.clear() : this.single(this.alone)),
      mode: (on) => {
        this.lasso.setAttribute("aria-pressed", on ? "true" : "false");
        if (on) maps.say(`Draw around ${side} to choose them.`);
      },
    } });
  }

  stop() {
    this.scatter.destroy();
  }

  wear(theme, ink) {
    const other = theme !== this.theme;
    this.theme = theme;
    this.scatter.ink = ink;
    if (other && this.colouring && !this.colouring.problem) this.paint();
    this.scatter.draw();
  }

  /** Colour the points; resolves when they are drawn. What takes how long is measured. */
  async colour(colouring) {
    if (colouring.asked === this.colouring?.asked) return;
    const start = this.maps.started ?? performance.now();
    this.colouring = colouring;
    this.alone = null;
    if (this.select_) this.select_.value = colouring.asked;
    this.picker?.show(colouring.problem ? colouring.asked.slice(0, 60) : colouring.title);
    if (colouring.problem) {
      this.legend.replaceChildren(el("p", { class: "alarm" }, colouring.problem));
      return;
    }
    this.tint();
    const news = this.maps.started !== null;
    await this.scatter.drawn();
    const detail = { points: this.rows, what: colouring.asked, drawn_by: this.scatter.drawnBy };
    performance.measure("elute:recolour", { start, end: performance.now(), detail });
    this.explain();
    const label = `Map of ${num(this.rows)} ${this.side}, coloured by ${shortened(colouring.title, 60)}`;
    this.scatter.canvas.setAttribute("aria-label", label);
    if (news) this.maps.say(`${label}. ${this.legend.querySelector("[data-words]")?.textContent ?? ""}`);
  }

  /** Colours alone: what must be quick. */
  tint() {
    this.painted = mapPaint(this.colouring, this.theme);
    this.scatter.setColors(this.painted.rgba, this.painted.order);
    this.scatter.setLabels([]);
  }

  paint() {
    this.tint();
    this.explain();
  }

  /** The legend, names on the map, and the same in words. */
  explain() {
    const { colouring, painted: { groups }, maps: { site, cells }, side } = this;
    if (groups) {
      this.scatter.setLabels(mapGroupNames(colouring, groups, this.scatter.units));
      const some = groups.order.length;
      const words = `${num(some)} ${some === 1 ? "group" : "groups"}${some > MAP_MOST_GROUPS ? `; the ${MAP_MOST_GROUPS} largest have colours` : ""}.`;
      const legend = mapGroupLegend(colouring, groups, { theme: this.theme, things: side, act: (code) => this.single(code) });
      this.legend.replaceChildren(legend, el("p", { class: "map-words", "data-words": "" }, words));
      return;
    }
    const rows = side === "cells" ? mapCellTable(colouring, cells) : mapFeatureTable(site, colouring, { open: (place) => this.maps.show(place) });
    const told = el("p", { class: "map-words", "data-words": "" }, this.words());
    this.legend.replaceChildren(...[mapRampLegend(colouring, this.theme), told, rows].filter(Boolean));
  }

  /** What the numbers say that points are coloured by. */
  words() {
    const { colouring, maps: { site, cells } } = this;
    if (this.side === "features") return mapSentence(colouring.told);
    if (colouring.of === "chosen") return "Activation of the lasso's features, as a share of each one's largest, on average over them.";
    return colouring.of === "column" ? "" : mapValueWords(site, colouring, { cells, open: (place) => this.maps.show(place) });
  }

  /** Show one group alone, or all again. */
  single(code) {
    this.alone = this.alone === code ? null : code;
    this.press();
    const { codes, words } = this.colouring;
    const { slots } = this.painted.groups;
    const mine = (each) => (this.alone === -1 ? each < words.length && slots[each] === 0 : each === this.alone);
    this.scatter.select(this.alone === null ? this.flags ?? null : Uint8Array.from(codes, (each) => (mine(each) ? 1 : 0)));
  }

  /** Let the legend's buttons say which group stands alone. */
  press() {
    for (const button of this.legend.querySelectorAll("button[data-code]")) {
      button.setAttribute("aria-pressed", this.alone !== null && Number(button.dataset.code) === this.alone ? "true" : "false");
    }
  }

  /** What a lasso chose. */
  select(flags) {
    this.flags = flags;
    this.alone = null;
    this.press();
    this.scatter.select(flags);
  }

  /** What stands at the pointer, or at the middle for who moves by keys, who is told it in words too. */
  tell(i, x, y, keyed) {
    clearTimeout(this.telling);
    if (i < 0) {
      this.tip.hidden = true;
      return;
    }
    this.tip.replaceChildren(...(this.side === "features" ? this.featureTip(i) : this.cellTip(i)));
    this.tip.hidden = false;
    const [width, height] = this.scatter.size;
    const { offsetWidth: wide, offsetHeight: high } = this.tip;
    const left = x + 14 + wide > width ? Math.max(0, x - 14 - wide) : x + 14;
    const top = y + 14 + high > height ? Math.max(0, y - 14 - high) : y + 14;
    this.tip.style.setProperty("--left", `${left}px`);
    this.tip.style.setProperty("--top", `${top}px`);
    if (keyed) this.telling = setTimeout(() => this.maps.say(Array.from(this.tip.children, (node) => node.textContent).join(", ")), 250);
  }

  untell() {
    this.tell(-1);
  }

  /** What the colour of a point says, in words. */
  valueOf(i) {
    const { colouring } = this;
    if (!colouring || colouring.problem) return null;
    const title = named(colouring.title, {}, 40);
    if (colouring.kind === "groups") {
      const word = colouring.words[colouring.codes[i]];
      return el("div", {}, title, ": ", word === undefined ? (this.side === "cells" ? "not given" : "none") : named(word, {}, 60));
    }
    return el("div", {}, title, ": ", Number.isNaN(colouring.values[i]) ? NOT_RUN : colouring.write(colouring.values[i]));
  }

  featureTip(place) {
    const { site } = this.maps;
    return [el("strong", {}, `Feature ${site.numbers[place]}`), el("div", {}, mapFeatureName(site, place, 80)), this.valueOf(place)].filter(Boolean);
  }

  cellTip(i) {
    const { cells } = this.maps;
    const name = ["cell", "name", "sample_id"].map((key) => cells.column(key)?.at(i)).find(known);
    const parts = ["label", "donor"].map((key) => cells.column(key)?.at(i)).filter(known);
    const lines = [el("strong", {}, named(name ?? `Cell ${i + 1}`, {}, 40))];
    if (parts.length) lines.push(el("div", {}, joined(parts.map((part) => named(part, {}, 40)), " · ")));
    const asked = this.colouring?.asked;
    if (asked !== "label:label" && asked !== "label:donor") lines.push(this.valueOf(i));
    return lines.filter(Boolean);
  }
}
