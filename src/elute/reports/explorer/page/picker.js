// The box in which is chosen what the cells are coloured by: a list of suggestions that changes with each key.

const MAP_OFFERS = 14; // suggestions at a time
const MAP_EACH = 7; // of one sort

/** What the cells can be coloured by that fits a text: columns of cells, features, genes. */
async function mapSuggestions(site, cells, text) {
  const query = text.trim().toLowerCase();
  const columns = mapCellColumns(cells)
    .map((name) => ({ asked: `label:${name}`, text: mapCellTitle(name), hint: cells.column(name).kind === "text" ? "groups" : "numbers" }))
    .filter((one) => !query || one.text.toLowerCase().includes(query));
  const features = site.has("codes-0") ? mapFeatureOffers(site, query) : [];
  const genes = [];
  if (site.has("expression-0")) {
    const names = [...(await mapGenesOf(site)).keys()];
    const rank = (name) => {
      const at = name.toLowerCase().indexOf(query);
      return at < 0 ? 9 : at > 0 ? 2 : name.length === query.length ? 0 : 1;
    };
    const found = names.filter((name) => rank(name) < 9).sort((a, b) => rank(a) - rank(b));
    genes.push(...found.slice(0, MAP_EACH).map((name) => ({ asked: `gene:${name}`, text: name, hint: "gene" })));
  }
  const exact = query && genes.length && genes[0].text.toLowerCase() === query ? genes.splice(0, 1) : [];
  return [...exact, ...columns.slice(0, MAP_EACH), ...features.slice(0, MAP_EACH), ...genes].slice(0, MAP_OFFERS);
}

/** Features by number, name or gene; without a text the most frequent ones. */
function mapFeatureOffers(site, query) {
  const offer = (place) => {
    const name = nameOf(site, place)?.text ?? firstGenes(site, place, 3).join(", ");
    return { asked: `feature:${site.numbers[place]}`, text: `Feature ${site.numbers[place]}`, hint: name, name: true };
  };
  const number = /^(?:feature\s*)?#?(\d{1,9})$/.exec(query)?.[1];
  const exact = number === undefined ? undefined : site.place(number);
  const hits = exact === undefined ? mapBestFeatures(site, query) : [exact];
  return hits.map(offer);
}

function mapBestFeatures(site, query) {
  const scores = query ? searched(site, query)?.scores : site.column("frequency")?.numbers().map((value) => (value > 0 ? -value : Infinity));
  if (!scores) return [];
  const best = [];
  for (let place = 0; place < site.rows; place += 1) {
    const score = scores[place];
    if (!(score < Infinity) || (best.length === MAP_EACH && !(score < scores[best[MAP_EACH - 1]]))) continue;
    let at = best.length;
    while (at > 0 && scores[best[at - 1]] > score) at -= 1;
    best.splice(at, 0, place);
    best.length = Math.min(best.length, MAP_EACH);
  }
  return best;
}

/** A box with a list: `suggest(text)` gives {asked, text, hint}, `choose(asked)` is told what was taken. */
class MapPicker {
  constructor(id, { label, suggest, choose }) {
    this.suggest = suggest;
    this.choose = choose;
    this.offers = [];
    this.active = -1;
    this.turn = 0;
    this.shown = "";
    this.typing = false;
    this.input = el("input", { id, type: "text", role: "combobox", "aria-expanded": "false", "aria-autocomplete": "list", "aria-controls": `${id}-list`,
      autocomplete: "off", spellcheck: "false", maxlength: 200, placeholder: "feature, gene or label", input: () => this.typed(), click: () => this.offer(),
      focus: () => this.input.select(), keydown: (event) => this.key(event), blur: () => this.close() });
    this.list = el("ul", { id: `${id}-list`, role: "listbox", "aria-label": "Suggestions", hidden: true, click: (event) => this.press(event),
      mousedown: (event) => event.preventDefault() }); // the box keeps the focus
    this.node = el("div", { class: "map-picker" }, el("label", { for: id }, label), this.input, this.list);
  }

  /** What the box says while nobody types in it. */
  show(text) {
    this.shown = text;
    if (!this.typing) this.rest();
  }

  /** Say what is shown; who stays in the box and types replaces it. */
  rest() {
    this.typing = false;
    if (this.input.value !== this.shown) this.input.value = this.shown;
    if (document.activeElement === this.input) this.input.select();
  }

  typed() {
    this.typing = true;
    this.offer();
  }

  async offer() {
    const turn = (this.turn += 1);
    const text = this.input.value === this.shown ? "" : this.input.value;
    const offers = await this.suggest(text);
    if (turn !== this.turn || document.activeElement !== this.input) return;
    this.offers = offers;
    this.active = text && offers.length ? 0 : -1;
    const nothing = el("li", { class: "dim", role: "option", "aria-disabled": "true", "aria-selected": "false" }, "Nothing here is called that.");
    const options = offers.map((one, i) => el("li", { id: `${this.list.id}-${i}`, role: "option", "aria-selected": "false", "data-at": i },
      named(one.text, {}, 40), el("span", { class: "dim" }, named(one.hint, {}, 48))));
    this.list.replaceChildren(...(options.length ? options : [nothing]));
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.point(this.active);
  }

  point(at) {
    this.active = at;
    Array.from(this.list.children).forEach((node, i) => node.setAttribute("aria-selected", i === at ? "true" : "false"));
    if (at >= 0) {
      this.input.setAttribute("aria-activedescendant", `${this.list.id}-${at}`);
      this.list.children[at].scrollIntoView({ block: "nearest" });
    } else this.input.removeAttribute("aria-activedescendant");
  }

  key(event) {
    const open = !this.list.hidden;
    const count = this.offers.length;
    if (event.key === "ArrowDown" && !open) this.offer();
    else if (event.key === "ArrowDown" && count) this.point((this.active + 1) % count);
    else if (event.key === "ArrowUp" && open && count) this.point((this.active + count - 1) % count);
    else if (event.key === "Enter" && open && this.active >= 0) this.take(this.active);
    else if (event.key === "Escape" && open) this.close();
    else {
      event.stopPropagation(); // keys in this box are nobody else's
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  press(event) {
    const node = event.target.closest("[data-at]");
    if (node) this.take(Number(node.dataset.at));
  }

  take(at) {
    const { asked } = this.offers[at];
    this.close();
    this.choose(asked);
  }

  close() {
    this.turn += 1;
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    this.rest();
  }
}
