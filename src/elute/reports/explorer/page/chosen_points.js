// What a lasso says: the features that are higher in its cells, or the features it holds and the cells they fire in.

const MAP_TOP = 30; // features that a lasso of cells lists
const MAP_LISTED = 100; // features of a lasso of features that are listed
const MAP_FEW = 3; // cells from which on features are compared

/** Names of the blocks that hold the codes, a group of features each. */
function mapCodeBlocks(site) {
  const names = [];
  for (let group = 0; site.has(`codes-${group}`); group += 1) names.push(`codes-${group}`);
  return names;
}

/** Go through all codes, a group at a time; `each(codes, first)`. False where `going()` says that nobody waits any more. */
async function mapThroughCodes(site, { each, going, tell }) {
  const names = mapCodeBlocks(site);
  for (let group = 0; group < names.length; group += 1) {
    const codes = await mapCodesOf(site, names[group]);
    if (!going()) return false;
    each(codes, group * site.info.group);
    if (group % 8 === 7) {
      tell(`Reading activations: ${group + 1} of ${names.length} parts.`);
      await new Promise((done) => { setTimeout(done); });
    }
  }
  return true;
}

/** The features that are higher in the cells inside than in the others, and what chance gives; null where nobody waits. */
async function mapHigherInside(site, { flags, count, going, tell }) {
  const draws = Array.from({ length: MAP_DRAWS }, (_, k) => mapDraw(flags.length, count, k + 1));
  let rows = [];
  let chance = -Infinity;
  const each = (codes, first) => {
    rows = mapStrongest([...rows, ...mapContrasts(codes, { flags, count, first })], MAP_TOP);
    chance = Math.max(chance, mapByChance(codes, { count, first, draws }));
  };
  return (await mapThroughCodes(site, { each, going, tell })) ? { rows, chance } : null;
}

/**
 * How strongly the chosen features fire in each cell, and how strongly all that ever fire: activations as shares of each
 * feature's largest, on average over features. Null where nobody waits.
 */
async function mapStrengthOf(site, { flags, n, going, tell }) {
  const whole = new Uint8Array(site.rows).fill(1);
  const [mine, all] = [new Float32Array(n), new Float32Array(n)];
  let [some, every] = [0, 0];
  const each = (codes, first) => {
    some += mapAddStrength(codes, { flags, first, sums: mine });
    every += mapAddStrength(codes, { flags: whole, first, sums: all });
  };
  if (!(await mapThroughCodes(site, { each, going, tell }))) return null;
  const mean = (sums, count) => sums.map((sum) => (count ? sum / count : 0));
  return { mine: mean(mine, some), all: mean(all, every), fires: some };
}

/** Who is inside, the most frequent first: words. */
function mapWho(cells, flags, name) {
  const column = cells.column(name);
  if (column?.kind !== "text") return null;
  const [inside, all] = [new Uint32Array(column.words.length + 1), new Uint32Array(column.words.length + 1)];
  const codes = column.codes();
  for (let i = 0; i < codes.length; i += 1) {
    const code = Math.min(codes[i], column.words.length);
    all[code] += 1;
    inside[code] += flags[i];
  }
  const order = Array.from(column.words.keys()).filter((code) => inside[code]).sort((a, b) => inside[b] - inside[a] || a - b);
  return { order, inside, all, words: column.words };
}

function mapWhoWords(cells, flags) {
  const parts = [];
  const types = mapWho(cells, flags, "label");
  if (types) {
    const some = types.order.slice(0, 4).map((code) => [named(types.words[code], {}, 30), ` ${num(types.inside[code])} of ${num(types.all[code])}`]);
    parts.push(joined(some), types.order.length > 4 ? `, and ${num(types.order.length - 4)} more types` : "", ". ");
  }
  const donors = mapWho(cells, flags, "donor");
  if (donors) {
    const most = donors.order.length ? donors.inside[donors.order[0]] / flags.reduce((sum, flag) => sum + flag, 0) : 0;
    parts.push(`From ${num(donors.order.length)} of ${num(donors.all.filter(Boolean).length)} donors; the largest share from one is ${percent(most)}.`);
  }
  return parts;
}

/** What a feature is called in a file. */
function mapPlainName(site, place) {
  return nameOf(site, place)?.text ?? firstGenes(site, place, 4);
}

/** The list of features that are higher in the chosen cells. */
function mapCellsChosen(site, cells, { flags, count, found, open }) {
  const rest = flags.length - count;
  const cut = (text, title) => ({ text, title, n: true });
  const heads = [cut("No."), { text: "Feature" }, cut("Higher by", "Difference of the means in its standard errors"),
    cut("Mean inside"), cut("Mean outside"), cut("Fires inside"), cut("Fires outside")];
  const cellsOf = ({ place, contrast, mean, meanRest, fires, firesRest }) => [
    mapFeatureLink(site, place, open), mapFeatureName(site, place, 48), contrast > found.chance ? fixed(contrast, 1) : dim(fixed(contrast, 1)),
    num(mean, 3), num(meanRest, 3), percent(fires / count), percent(rest ? firesRest / rest : 0)];
  const title = `Features that are higher in the ${num(count)} cells of the lasso`;
  const tsv = () => ({
    heads: ["feature", "name", "contrast", "contrast_by_chance", "mean_inside", "mean_outside", "fires_inside", "fires_outside", "cells_inside", "cells_outside"],
    rows: found.rows.map(({ place, contrast, mean, meanRest, fires, firesRest }) =>
      [site.numbers[place], mapPlainName(site, place), contrast, found.chance, mean, meanRest, fires, firesRest, count, rest]),
  });
  return [
    el("p", { class: "note" }, mapWhoWords(cells, flags)),
    found.rows.length
      ? savableTable(table(title, heads, found.rows.map(cellsOf), "cards"), { name: `lasso-${site.key}`, title, tsv })
      : el("p", {}, "No feature is higher in these cells."),
    el("p", { class: "note" }, "Ordered by the difference of means in its standard errors. ",
      `Control: as many cells drawn at random (${MAP_DRAWS} times) reach at most ${fixed(Math.max(0, found.chance), 1)}; what reaches no more is dim. `,
      "The cells were chosen by eye, so this describes them and tests nothing."),
  ];
}

/** The features of a lasso, and the cells they fire in. */
function mapFeaturesChosen(site, cells, { flags, count, strength, open }) {
  const places = Array.from(flags.keys()).filter((place) => flags[place]);
  const often = site.column("frequency")?.numbers();
  places.sort((a, b) => (often ? (often[b] || 0) - (often[a] || 0) : 0) || a - b);
  const columns = ["kind", "cell_type", "frequency"].filter((name) => site.column(name));
  const heads = [{ text: "No.", n: true }, { text: "Feature" }, ...columns.map((name) => ({ text: toldOf(site, name).title, n: name === "frequency" }))];
  const write = (name, place) => {
    const value = site.value(name, place);
    return value === null ? dim("–") : typeof value === "number" ? writerOf(site, name)(value) : named(value, {}, 32);
  };
  const title = `The ${num(count)} features of the lasso`;
  const tsv = () => ({
    heads: ["feature", "name", ...columns],
    rows: places.map((place) => [site.numbers[place], mapPlainName(site, place), ...columns.map((name) => site.value(name, place))]),
  });
  const shown = places.slice(0, MAP_LISTED);
  const cellsOf = (place) => [mapFeatureLink(site, place, open), mapFeatureName(site, place, 48), ...columns.map((name) => write(name, place))];
  return [
    cells && strength ? mapStrengthTable(cells, strength) : null,
    savableTable(table(title, heads, shown.map(cellsOf), "cards"), { name: `lasso-${site.key}`, title, tsv }),
    count > shown.length ? el("p", { class: "note" }, `The ${num(shown.length)} most frequent ones; the file has all.`) : null,
  ].flat().filter(Boolean);
}

/** How strongly the chosen features fire in cells of each type, beside all features there. */
function mapStrengthTable(cells, { mine, all, fires }) {
  const by = cells.column("label") ?? cells.column("donor");
  if (by?.kind !== "text" || !fires) return null;
  const group = { codes: by.codes(), words: by.words };
  const others = new Map(mapByGroup(all, group).map((row) => [row.code, row.mean]));
  const rows = mapByGroup(mine, group).slice(0, MAP_ROWS);
  const heads = [{ text: by === cells.column("label") ? "Cell type" : "Donor" }, { text: "Activation", n: true },
    { text: "Of all features", n: true }, { text: "Cells", n: true }];
  const title = "Mean activation of the chosen features in cells, as a share of each one's largest";
  return [el("p", { class: "note" }, `${title}; beside it the same of all features that fire.`),
    table(title, heads, rows.map((row) => [named(row.word, {}, 40), num(row.mean, 3), dim(num(others.get(row.code), 3)), num(row.cells)]), "cards")];
}
