// The legend of a map: which colour says what, the numbers behind it, and the same in words for who does not see it.

const MAP_ROWS = 12; // of a table in a legend
const MAP_NAMES = 40; // groups that a legend lists

function mapCss(rgba, i) {
  return `rgb(${rgba[4 * i]} ${rgba[4 * i + 1]} ${rgba[4 * i + 2]})`;
}

function mapSwatch(colour) {
  return el("i", { class: "map-swatch", "--colour": colour, "aria-hidden": "true" });
}

/** How many, of how many, and what share that is. */
function mapShareOf(count, of) {
  return `${num(count)} of ${num(of)} (${percent(of ? count / of : 0)})`;
}

/** Mean and share above 0 of values in each group, the highest mean first. */
function mapByGroup(values, { codes, words }) {
  const sums = words.map(() => ({ sum: 0, cells: 0, above: 0 }));
  for (let i = 0; i < values.length; i += 1) {
    const row = sums[codes[i]];
    if (!row || Number.isNaN(values[i])) continue;
    row.cells += 1;
    row.sum += values[i];
    if (values[i] > 0) row.above += 1;
  }
  return sums.map((row, code) => ({ ...row, code, word: words[code], mean: row.sum / row.cells }))
    .filter((row) => row.cells)
    .sort((a, b) => b.mean - a.mean || a.code - b.code);
}

/** The scale of numbers. */
function mapRampLegend({ low, high, log, aboveZero, write, values }, theme) {
  const table = mapRampTable(theme);
  const stops = Array.from({ length: 9 }, (_, i) => mapCss(table, 1 + Math.round((i * (MAP_LEVELS - 1)) / 8)));
  const middle = log ? Math.sqrt(low * high) : (low + high) / 2;
  const [least, most] = mapEnds(values);
  const end = (beyond, sign, value) => (beyond && !write(value).startsWith("<") ? `${sign} ${write(value)}` : write(value));
  const ends = [low === 0 && aboveZero ? "0" : end(least < low, "≤", low), write(middle), end(most > high, "≥", high)];
  return el("div", { class: "map-scale" },
    el("div", { class: "map-key" }, mapSwatch(mapCss(table, 0)), aboveZero ? "0" : "none"),
    el("div", { class: "map-ramp-box" },
      el("i", { class: "map-ramp", "--ramp": `linear-gradient(to right, ${stops.join(", ")})`, "aria-hidden": "true" }),
      el("div", { class: "map-ends" }, ends.map((text) => el("span", {}, text)))),
    log ? el("span", { class: "dim" }, "by factors") : null);
}

function mapEnds(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** The groups as buttons: one that is pressed is alone in full colour. `act(code)` is told; −1 is the others. */
function mapGroupLegend({ words, title }, { counts, slots, order }, { theme, act, things }) {
  const table = mapGroupTable(theme);
  const button = (code, slot, text, count, whole) => el("button",
    { type: "button", class: "map-group", "aria-pressed": "false", "data-code": code, title: whole, click: () => act(code) },
    mapSwatch(mapCss(table, slot)), el("bdi", { class: "name" }, text), el("span", { class: "dim" }, num(count)));
  const main = order.filter((code) => slots[code]);
  const rest = order.length - main.length;
  const inRest = order.filter((code) => !slots[code]).reduce((sum, code) => sum + counts[code], 0);
  const none = counts[words.length];
  return el("div", { class: "map-groups", role: "group", "aria-label": `${title}: show one alone` },
    main.slice(0, MAP_NAMES).map((code) => button(code, slots[code], shortened(words[code], 32) || "(empty)", counts[code], words[code].slice(0, 400))),
    rest ? button(-1, 0, `${num(rest)} others`, inRest) : null,
    none ? el("span", { class: "map-group" }, mapSwatch(mapCss(table, MAP_MOST_GROUPS + 1)), things === "cells" ? "not given" : "none",
      el("span", { class: "dim" }, `${num(none)} ${things}`)) : null);
}

/** What one feature's or gene's colours say, in words and numbers. */
function mapValueWords(site, { values, most, of, place, write, fires, floor }, { cells, open }) {
  let above = 0;
  for (const value of values) if (value > 0) above += 1;
  const words = [of === "feature" ? [mapFeatureName(site, place), ". "] : null, `Above 0 in ${mapShareOf(fires ?? above, cells.rows)} cells shown; highest ${write(most)}.`];
  if (of !== "feature") return site.info.expression ? [...words, ` Shown is: ${shortened(site.info.expression, 200)}.`] : words;
  if (floor > 0) words.push(` Only the ${num(above)} strongest cells are coloured: it is at most ${write(floor)} in the others.`);
  const all = site.value("cell_frequency", place);
  if (known(all)) words.push(` It fires in ${percent(all)} of all cells.`);
  const type = site.value("cell_type", place);
  const [shown, on] = [site.value("auroc_shown", place), site.value("auroc", place)];
  if (type !== null && (known(shown) || known(on))) {
    const told = known(shown)
      ? `${fixed(shown)} on cells that did not choose it (${fixed(on)} on those that did)`
      : `${fixed(on)} on the cells that chose it`;
    words.push(" Cell type that it follows best: ", named(type, {}, 40), `, AUROC ${told}; by chance 0.5.`);
  }
  const again = site.value("stability", place);
  if (known(again)) words.push(` Cosine with its like of another seed: ${fixed(again)}.`);
  words.push(" ", mapFeatureLink(site, place, open, "Open the feature"), ".");
  return words;
}

/** The table behind the colours of cells: a row a cell type. */
function mapCellTable(colouring, cells) {
  const by = cells.column("label") ?? cells.column("donor");
  if (!by || by.kind !== "text" || colouring.kind !== "numbers") return null;
  const rows = mapByGroup(colouring.values, { codes: by.codes(), words: by.words });
  if (!rows.length) return null;
  const title = by === cells.column("label") ? "Cell type" : "Donor";
  const heads = [{ text: title }, { text: "Mean", n: true }, { text: "Above 0", n: true }, { text: "Cells", n: true }];
  const lines = rows.slice(0, MAP_ROWS).map((row) => [named(row.word, {}, 40), num(row.mean, 3), percent(row.above / row.cells), num(row.cells)]);
  const name = `${colouring.title}, by ${title.toLowerCase()}`;
  const rest = rows.length - lines.length;
  const [first, second] = rows;
  const then = second ? [", then ", named(second.word, {}, 40), `: ${num(second.mean, 3)}`] : null;
  return el("details", {}, el("summary", {}, "Highest in ", named(first.word, {}, 40), `: mean ${num(first.mean, 3)}`, then),
    table(name, heads, lines), rest > 0 ? el("p", { class: "note" }, `${num(rest)} more with lower means.`) : null);
}

/** The features with the highest values of a column, as links. */
function mapFeatureTable(site, colouring, { open }) {
  if (colouring.kind !== "numbers") return null;
  const { values, title, write } = colouring;
  const order = Array.from(values.keys()).filter((i) => !Number.isNaN(values[i])).sort((a, b) => values[b] - values[a] || a - b);
  if (!order.length) return null;
  const heads = [{ text: "No.", n: true }, { text: "Feature" }, { text: title, n: true }];
  const rows = order.slice(0, MAP_ROWS).map((place) => [mapFeatureLink(site, place, open), mapFeatureName(site, place), write(values[place])]);
  const rest = order.length < values.length ? `; known of ${mapShareOf(order.length, values.length)}` : "";
  return el("details", {}, el("summary", {}, `Highest: feature ${site.numbers[order[0]]}, ${write(values[order[0]])}${rest}`),
    table(`Features with the highest ${title}`, heads, rows));
}

/** A link that opens a feature; it says the feature's number where it is given no other words. */
function mapFeatureLink(site, place, open, words = String(site.numbers[place])) {
  return el("a", { href: addressOf({ feature: site.numbers[place], view: "map" }), "data-place": place, click: (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(place);
  } }, words);
}

/** What a feature is called, else its first genes. */
function mapFeatureName(site, place, most = 60) {
  const name = nameOf(site, place);
  if (name !== null) return named(name.text, {}, most);
  const genes = firstGenes(site, place, 4);
  if (genes.length) return joined(genes.map((gene) => named(gene, {}, 20)));
  return dim(site.value("alive", place) === false ? "silent" : "no gene");
}

/** The names of groups that lie together, at the middle of their points: those spread all over have no place. */
function mapGroupNames({ codes, words }, { slots, order }, { x, y }) {
  const middle = (values) => values.sort()[values.length >> 1];
  const apart = (values, at) => Float32Array.from(values, (value) => Math.abs(value - at)).sort()[values.length >> 1];
  const members = new Map(order.filter((code) => slots[code]).map((code) => [code, []]));
  for (let i = 0; i < x.length; i += 1) if (x[i] >= 0) members.get(codes[i])?.push(i);
  const names = [];
  for (const [code, list] of members) {
    if (list.length < 2) continue;
    const [xs, ys] = [Float32Array.from(list, (i) => x[i]), Float32Array.from(list, (i) => y[i])];
    const at = { x: middle(xs), y: middle(ys) };
    if (Math.hypot(apart(xs, at.x), apart(ys, at.y)) < 0.13) names.push({ ...at, text: shortened(words[code], 22) });
  }
  return names;
}
