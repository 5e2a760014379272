// What points are coloured by: a value or a group for each, with the words that a legend needs.
//
// A colouring is {asked, title, kind: "numbers", values, low, high, log, aboveZero, write} or {…, kind: "groups", codes,
// words, none}; what cannot be had is {asked, problem}. `codes` may be larger than `words` has places: those have none.

const MAP_HIDDEN = new Set(["x", "y", "cell", "name", "row", "index", "sample_id"]); // columns of cells that are no colours
const MAP_WHOLE = new Set(["module", "feature"]); // numbers of features that name groups, or nothing but themselves
const MAP_SKEW = 8; // of the high end over the middle: from there on a scale goes by factors

/** Where a scale begins and ends, and whether it goes by factors: 2 and 98 of a hundred values lie within. */
function mapScale(values) {
  const some = [];
  const step = Math.max(1, Math.floor(values.length / 20_000));
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) some.push(values[i]);
  some.sort((a, b) => a - b);
  if (!some.length) return { low: 0, high: 0, log: false };
  const at = (share) => some[Math.round(share * (some.length - 1))];
  const above = some.filter((value) => value > 0);
  const log = some[0] >= 0 && above.length > 1 && at(0.98) > MAP_SKEW * Math.max(at(0.5), Number.MIN_VALUE);
  if (!log) return { low: at(0.02), high: at(0.98), log };
  return { low: above[Math.round(0.02 * (above.length - 1))], high: above[Math.round(0.98 * (above.length - 1))], log };
}

function mapMost(values) {
  let most = 0;
  for (const value of values) if (value > most) most = value;
  return most;
}

/** Numbers that are 0 in most cells: what is above 0 is coloured, up to the largest; where most are above, between their ends. */
function mapAboveZero(asked, title, values) {
  const most = mapMost(values);
  const told = { asked, title, kind: "numbers", values, most, log: false, aboveZero: true, write: (value) => num(value, 3) };
  let above = 0;
  for (const value of values) if (value > 0) above += 1;
  const { low, high } = above > 0.6 * values.length ? mapScale(values.map((value) => (value > 0 ? value : NaN))) : { low: 0, high: 0 };
  return high > low ? { ...told, low, high } : { ...told, low: 0, high: most };
}

function mapColumnOf(asked, title, column, write = (value) => num(value, 3)) {
  if (column.kind === "bool") {
    const codes = Uint8Array.from(column.stored, (value) => (value === 2 ? 2 : 1 - value));
    return { asked, title, kind: "groups", codes, words: ["yes", "no"] };
  }
  if (column.kind === "text") return { asked, title, kind: "groups", codes: column.codes(), words: column.words };
  const values = column.numbers();
  return { asked, title, kind: "numbers", values, ...mapScale(values), aboveZero: false, write };
}

/** Whole numbers that name groups, as modules do. */
function mapNamedNumbers(asked, title, column) {
  const values = column.numbers();
  const names = [...new Set(values)].filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  const places = new Map(names.map((value, code) => [value, code]));
  const codes = Uint32Array.from(values, (value) => places.get(value) ?? names.length);
  return { asked, title, kind: "groups", codes, words: names.map((value) => `${title.toLowerCase()} ${value}`) };
}

/** Titles of the columns of cells. */
function mapCellTitle(name) {
  const told = { label: "Cell type", donor: "Donor", batch: "Batch", split: "Split", total: "Sum of counts", genes: "Genes with a count" };
  return told[name] ?? name.replace(/^obs:/, "").replaceAll("_", " ");
}

/** The columns by which cells can be coloured. */
function mapCellColumns(cells) {
  return cells.names.filter((name) => !MAP_HIDDEN.has(name) && ["number", "text", "bool"].includes(cells.column(name).kind));
}

/** What the cells are coloured by where nothing is asked for. */
function mapUsualCells(site, cells) {
  const columns = mapCellColumns(cells);
  const first = columns.find((name) => name === "label") ?? columns.find((name) => cells.column(name).kind === "text") ?? columns[0];
  return first === undefined ? "" : `label:${first}`;
}

/** The codes of a group of features or genes, decoded once. */
const mapDecoded = new WeakMap(); // block: its codes

async function mapCodesOf(site, name) {
  const block = await site.block(name);
  if (!mapDecoded.has(block)) mapDecoded.set(block, mapDecode(block));
  return mapDecoded.get(block);
}

/** Which blocks of genes there are, and in which row of which one a gene stands. */
const mapGenes = new Map(); // key of a site: promise of genes

function mapGenesOf(site) {
  if (!mapGenes.has(site.key)) mapGenes.set(site.key, mapReadGenes(site));
  return mapGenes.get(site.key);
}

async function mapReadGenes(site) {
  const found = new Map();
  for (let group = 0; site.has(`expression-${group}`); group += 1) {
    const block = await site.block(`expression-${group}`);
    const genes = block.column("gene");
    for (let row = 0; row < block.rows; row += 1) {
      const name = genes.at(row);
      if (name !== null && !found.has(name)) found.set(name, { name: `expression-${group}`, row });
    }
  }
  return found;
}

/** A colouring of the cells, by what the address asks for. */
async function mapColourCells(site, cells, asked) {
  const cut = asked.indexOf(":");
  const [what, name] = [asked.slice(0, cut), asked.slice(cut + 1)];
  if (what === "feature") return mapCellsByFeature(site, cells, asked, name);
  if (what === "gene") {
    const gene = (await mapGenesOf(site)).get(name);
    if (!gene) return { asked, problem: `This page does not hold the counts of ${shortened(name, 40)}: it holds those of the genes that are named most often.` };
    return { ...mapAboveZero(asked, name, mapSpread(await mapCodesOf(site, gene.name), gene.row, cells.rows)), of: "gene" };
  }
  if (what === "label" && mapCellColumns(cells).includes(name)) return { ...mapColumnOf(asked, mapCellTitle(name), cells.column(name)), of: "column" };
  return { asked, problem: `The cells have nothing called ${shortened(name || asked, 40)}.` };
}

async function mapCellsByFeature(site, cells, asked, name) {
  const place = /^\d{1,9}$/.test(name) ? site.place(name) : undefined;
  if (place === undefined) return { asked, problem: `There is no feature ${shortened(name, 12)} on this page.` };
  const group = Math.floor(place / site.info.group);
  if (!site.has(`codes-${group}`)) return { asked, problem: "This page holds no activations of its features." };
  const codes = await mapCodesOf(site, `codes-${group}`);
  const row = place - group * site.info.group;
  const told = { of: "feature", place, fires: codes.fires?.[row] ?? null, floor: codes.floor?.[row] ?? 0 };
  return { ...mapAboveZero(asked, `Feature ${name}`, mapSpread(codes, row, cells.rows)), ...told };
}

/** Whether words come more than once, as names of groups do, and not those of single features. */
function mapIsOfGroups(column) {
  return new Set(column.codes()).size < Math.max(30, column.length / 4);
}

/** The columns by which features can be coloured. */
function mapFeatureColumns(site) {
  return site.features.names.filter((name) => {
    const column = site.column(name);
    return name !== "feature" && (column.kind === "bool" || column.kind === "number" || (column.kind === "text" && mapIsOfGroups(column)));
  });
}

function mapUsualFeatures(site) {
  const columns = mapFeatureColumns(site);
  return ["kind", "module", "cell_type", "frequency"].find((name) => columns.includes(name)) ?? columns[0] ?? "";
}

/** A colouring of the features by a column of theirs. */
function mapColourFeatures(site, name) {
  if (!mapFeatureColumns(site).includes(name)) return { asked: name, problem: `The features have no column ${shortened(name, 40)}.` };
  const { title, what } = toldOf(site, name);
  const column = site.column(name);
  if (MAP_WHOLE.has(name) && column.kind === "number") return { ...mapNamedNumbers(name, title, column), told: what };
  return { ...mapColumnOf(name, title, column, writerOf(site, name)), told: what };
}

/** How many points each group has; the last one counts those that have none. */
function mapGroupCounts({ codes, words }) {
  const counts = new Uint32Array(words.length + 1);
  for (const code of codes) counts[Math.min(code, words.length)] += 1;
  return counts;
}

/** Colours and order of points, and for groups who has which colour. */
function mapPaint(colouring, theme) {
  const n = (colouring.values ?? colouring.codes).length;
  if (colouring.kind === "numbers") {
    const { values, low, high, aboveZero, log } = colouring;
    const scaled = log ? Float32Array.from(values, (value) => (value > 0 ? Math.log(value) : value === 0 ? Math.log(low) : NaN)) : values;
    const levels = mapLevelsOf(scaled, { low: log ? Math.log(low) : low, high: log ? Math.log(high) : high, aboveZero });
    return { rgba: mapShade(levels, mapRampTable(theme)), order: mapOrderOf(levels, MAP_LEVELS) };
  }
  const counts = mapGroupCounts(colouring);
  const { slots, order } = mapSlotsOf(counts.subarray(0, colouring.words.length));
  const levels = new Uint16Array(n);
  const none = MAP_MOST_GROUPS + 1;
  for (let i = 0; i < n; i += 1) levels[i] = colouring.codes[i] < colouring.words.length ? slots[colouring.codes[i]] : none;
  const ranks = Uint8Array.from(levels, (level) => (level === none ? 0 : level === 0 ? 1 : 2));
  return { rgba: mapShade(levels, mapGroupTable(theme)), order: mapOrderOf(ranks, 2), groups: { counts, slots, order } };
}
