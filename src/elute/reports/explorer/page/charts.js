// Charts of one feature, in marks that carry their colours: a style sheet dresses them, a file has them dark on white.

const EXACT = 254; // rows of a bin up to which the page holds them exactly
const CHART_FONT = "system-ui, 'Helvetica Neue', Arial, sans-serif";
const [WIDE, NARROW] = [560, 350]; // of a drawing, so that its letters can be read on a desk and on a telephone
const narrow = matchMedia("(max-width: 719px)");
const ruler = document.createElement("canvas").getContext("2d");
const INKS = {
  ground: { fill: "#ffffff" }, ink: { fill: "#1c232b" }, faint: { fill: "#56616d" }, rule: { stroke: "#d3d9df", fill: "none" },
  observed: { fill: "#1f6fb2" }, control: { fill: "#b4bdc7" }, doubt: { fill: "#c07a24" }, plain: { fill: "#8b96a2" },
  ring: { fill: "none", stroke: "#6b7783", "stroke-width": "1.6" }, link: { stroke: "#9aa5b1", "stroke-width": "1.6" },
  half: { stroke: "#b3591d", "stroke-width": "1.5", fill: "none", "stroke-dasharray": "6 4" },
};

function ink(name, kind, attributes, ...children) {
  return svg(name, { class: kind, ...INKS[kind], ...attributes }, ...children);
}

function words(x, y, told, kind = "ink", attributes = {}) {
  return ink("text", kind, { x, y, ...attributes }, told);
}

function rule(x1, y1, x2, y2, kind = "rule") {
  return ink("line", kind, { x1, y1, x2, y2 });
}

function lengthOf(told, size = 12) {
  ruler.font = `${size}px ${CHART_FONT}`;
  return ruler.measureText(told).width;
}

/** Text cut to what fits into some width. */
function fitted(whole, room, size = 12) {
  const letters = Array.from(shortened(whole, 200));
  if (lengthOf(letters.join(""), size) <= room) return letters.join("");
  while (letters.length > 1 && lengthOf(`${letters.join("")}…`, size) > room) letters.pop();
  return `${letters.join("").trimEnd()}…`;
}

/** A name in a drawing, whichever way it is written; `over` what is drawn there already it has ground behind it. */
function label(x, y, whole, most, over = false) {
  const text = fitted(whole, most);
  const ground = over ? ink("rect", "ground", { x, y: y - 11, width: lengthOf(text) + 5, height: 15 }) : [];
  return svg("g", {}, svg("title", {}, shortened(whole, 400)), ground, words(x, y, text, "ink", { "unicode-bidi": "isolate" }));
}

function drawing(width, height, title, marks) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title, "font-family": CHART_FONT, "font-size": 12 },
    ink("rect", "ground", { width, height }), marks);
}

function room() {
  return narrow.matches ? NARROW : WIDE;
}

/** Marks and what they stand for, in a line. */
function legend(x, y, entries) {
  const marks = [];
  for (const [kind, told] of entries) {
    marks.push(ink("circle", kind, { cx: x + 4, cy: y - 4, r: 4 }), words(x + 13, y, told, "faint", { "font-size": 11 }));
    x += 26 + lengthOf(told, 11);
  }
  return marks;
}

/** Rows by how strongly it fires, two bins to each doubling. */
function histogramChart(site, place, detail) {
  const bins = listOf(site, place, { detail, name: "histogram" });
  if (!bins || !bins.some((count) => count > 0)) return null;
  const first = bins.findIndex((count) => count > 0);
  const last = bins.findLastIndex((count) => count > 0);
  const counts = bins.slice(first, last + 1);
  const most = Math.max(...counts);
  const [width, height] = [room(), 96];
  const step = Math.min((width - 8) / counts.length, 40);
  const given = site.info.edges ?? [];
  const edges = given.length === bins.length - 1 ? [0, ...given, site.value("max", place)] : null;
  const range = (i) => (edges ? `${num(edges[first + i])} to ${num(edges[first + i + 1])}` : `bin ${first + i}`);
  const rows = (count) => `${count > EXACT ? "about " : ""}${num(Number(count.toPrecision(count > EXACT ? 2 : 6)))} rows`;
  const marks = counts.map((count, i) => {
    const tall = count ? Math.max(1, (height * count) / most) : 0;
    return ink("rect", "observed", { x: 4 + i * step + 0.5, width: Math.max(1, step - 1), y: 14 + height - tall, height: tall },
      svg("title", {}, `${range(i)}: ${rows(count)}`));
  });
  const foot = 14 + height;
  const end = 4 + counts.length * step;
  marks.push(rule(4, foot, end, foot), words(4, 10, `${rows(most)} in the fullest bin`, "faint", { "font-size": 11 }));
  if (edges) {
    const ends = [num(edges[first]), num(edges[last + 1])];
    marks.push(words(4, foot + 15, ends[0], "faint", { "font-size": 11 }), words(Math.max(end, 60), foot + 15, ends[1], "faint", { "font-size": 11, "text-anchor": "end" }));
  }
  const number = site.numbers[place];
  const title = `Feature ${number}: rows by activation, two bins to each doubling`;
  return savable({ name: `strength-${number}`, title, drawn: drawing(width, foot + 20, title, marks),
    tsv: () => ({ heads: ["from", "to", "rows (rounded above 254)"], rows: bins.map((count, i) => [edges?.[i] ?? null, edges?.[i + 1] ?? null, Math.round(count)]) }) });
}

/** Three bars a gene: z (those held out, behind them those that chose), activation × expression, expression. */
function genesChart(site, place, { rows, title, name }) {
  const shown = rows.some((row) => known(row.z_shown));
  const width = room();
  const [left, gap, step, top] = [narrow.matches ? 88 : 112, 16, 20, 40];
  const wide = (width - left - 3 * gap - 4) / 3;
  const heads = narrow.matches ? [["z, held out", "line: chosen"], ["activation ×", "expression"], ["mean", "expression"]]
    : [["z, held out", "(outline: chosen)"], ["activation ×", "expression"], ["expression", "mean of the gene"]];
  if (!shown) heads[0] = ["z, on cells", "that chose"];
  const most = [Math.max(...rows.flatMap((row) => [row.z ?? 0, row.z_shown ?? 0]), 0), Math.max(...rows.map((row) => row.score ?? 0), 0),
    Math.max(...rows.map((row) => row.expression ?? 0), 0)];
  const marks = heads.flatMap(([one, two], i) => {
    const x = left + i * (wide + gap);
    return [words(x, 13, one, "faint", { "font-size": 11 }), words(x, 26, fitted(two, wide + gap - 4, 10.5), "faint", { "font-size": 10.5 })];
  });
  const long = (value, i) => Math.max(0, Math.min(1, (value ?? 0) / (most[i] || 1))) * (wide - 34);
  rows.forEach((row, r) => {
    const y = top + r * step;
    marks.push(label(0, y + 10, row.gene ?? "?", left - 8));
    const values = [shown ? row.z_shown : row.z, row.score, row.expression];
    values.forEach((value, i) => {
      const x = left + i * (wide + gap);
      if (i === 0 && shown && known(row.z)) marks.push(ink("rect", "ring", { x, y: y + 0.5, width: Math.max(0.5, long(row.z, 0)), height: 11 }));
      marks.push(ink("rect", i === 0 ? "observed" : i === 1 ? "plain" : "control", { x, y: y + 2, width: Math.max(0.5, long(value, i)), height: 8 }));
      const after = x + Math.max(long(value, i), i === 0 && shown ? long(row.z, 0) : 0) + 4;
      marks.push(words(after, y + 10, known(value) ? short(value) : "–", "faint", { "font-size": 10.5 }));
    });
  });
  const heads_ = ["gene", "rank", "rank_raw", "z_shown", "z", "token_z", "score", "mean", "expression", "rate"].filter((key) => rows.some((row) => key in row));
  const number = site.numbers[place];
  return savable({ name: `${name}-${number}`, title: `Feature ${number}: ${title}`, drawn: drawing(width, top + rows.length * step, title, marks),
    tsv: () => ({ heads: heads_, rows: rows.map((row) => heads_.map((key) => row[key])) }) });
}

/** A number in as few letters as a bar has room for. */
function short(value) {
  const size = Math.abs(value);
  if (size >= 10_000) return `${Math.round(value / 1000)}k`;
  return size >= 100 ? String(Math.round(value)) : num(value, 2);
}

/** The AUROC of each level: those held out filled, those that chose as rings; the dashed line tells nothing. */
function aurocChart(site, place, column, rows) {
  const width = room();
  const above = narrow.matches;
  const [left, right, top, step] = [above ? 8 : 178, width - 14, 26, above ? 38 : 24];
  const values = rows.flatMap((row) => [row.auroc, row.auroc_shown]).filter(known);
  const [low, high] = [Math.min(0.4, Math.floor(10 * Math.min(...values)) / 10), 1];
  const at = (value) => left + ((value - low) / (high - low)) * (right - left);
  const foot = top + rows.length * step;
  const marks = [];
  for (let x = Math.ceil(low * 10); x <= 10; x += 1) {
    if (x % 2 && x !== 5) continue;
    marks.push(rule(at(x / 10), top - 8, at(x / 10), foot), words(at(x / 10), top - 12, (x / 10).toFixed(1), "faint", { "font-size": 11, "text-anchor": "middle" }));
  }
  marks.push(rule(at(0.5), top - 8, at(0.5), foot, "half"));
  rows.forEach((row, i) => {
    const y = top + (i + (above ? 0.68 : 0.5)) * step;
    marks.push(above ? label(0, y - 11, row.level, width - 8, true) : label(0, y + 4, row.level, left - 14));
    if (known(row.auroc) && known(row.auroc_shown)) marks.push(rule(at(row.auroc), y, at(row.auroc_shown), y, "link"));
    if (known(row.auroc)) marks.push(ink("circle", "ring", { cx: at(row.auroc), cy: y, r: 4.5 }));
    if (known(row.auroc_shown)) marks.push(ink("circle", "observed", { cx: at(row.auroc_shown), cy: y, r: 4.5 }));
  });
  marks.push(legend(above ? 0 : left, foot + 16, [["observed", "held-out cells"], ["ring", "cells that chose"]]));
  const number = site.numbers[place];
  const title = `Feature ${number}: AUROC by ${column}; 0.5 tells nothing`;
  const heads = Object.keys(rows[0]);
  return savable({ name: `auroc-${column}-${number}`, title, drawn: drawing(width, foot + 24, title, marks),
    tsv: () => ({ heads, rows: rows.map((row) => heads.map((key) => row[key])) }) });
}

/** Each donor's mean over the level's cells and over the others, joined: a thousand cells of one donor are one donor. */
function donorsChart(site, place, { column, level, rows }) {
  const width = room();
  const [left, right, top, step] = [narrow.matches ? 96 : 130, width - 14, 26, 18];
  const most = Math.max(...rows.flatMap((row) => [row.mean_inside ?? 0, row.mean_outside ?? 0])) || 1;
  const at = (value) => left + (value / most) * (right - left);
  const foot = top + rows.length * step;
  const marks = [0, 0.5, 1].flatMap((share) => [rule(at(share * most), top - 8, at(share * most), foot),
    words(at(share * most), top - 12, num(share * most, 2), "faint", { "font-size": 11, "text-anchor": share === 1 ? "end" : share ? "middle" : "start" })]);
  rows.forEach((row, i) => {
    const y = top + (i + 0.5) * step;
    marks.push(label(0, y + 4, row.donor ?? "?", left - 12));
    if (known(row.mean_inside) && known(row.mean_outside)) marks.push(rule(at(row.mean_outside), y, at(row.mean_inside), y, "link"));
    const told = (side, mean, cells) => svg("title", {}, `${shortened(row.donor, 60)}, ${side}: mean ${num(mean)} over ${num(cells)} cells`);
    if (known(row.mean_outside)) marks.push(ink("circle", "ring", { cx: at(row.mean_outside), cy: y, r: 4 }, told("others", row.mean_outside, row.cells_outside)));
    if (known(row.mean_inside)) marks.push(ink("circle", "observed", { cx: at(row.mean_inside), cy: y, r: 4.5 }, told("inside", row.mean_inside, row.cells_inside)));
  });
  marks.push(legend(0, foot + 16, [["observed", fitted(level, 130, 11)], ["ring", "its other cells"]]));
  const number = site.numbers[place];
  const title = `Feature ${number}: mean activation by donor, ${shortened(level, 60)} and other cells`;
  const heads = ["donor", "mean_inside", "mean_outside", "cells_inside", "cells_outside"];
  return savable({ name: `donors-${column}-${number}`, title, drawn: drawing(width, foot + 24, title, marks),
    tsv: () => ({ heads: ["column", "level", ...heads], rows: rows.map((row) => [column, level, ...heads.map((key) => row[key])]) }) });
}

/** The odds of the best terms, on a scale that doubles; what only a plain test finds has another colour. */
function oddsChart(site, place, rows) {
  const told = rows.filter((row) => known(row.odds) && row.odds > 0);
  if (!told.length) return null;
  const width = room();
  const above = narrow.matches;
  const [left, right, top, step] = [above ? 8 : 0.46 * width, 0.8 * width, 24, above ? 38 : 24];
  const ends = told.flatMap((row) => [row.odds, row.odds_low, row.odds_high]).filter((value) => known(value) && value > 0 && value < Infinity);
  const low = Math.floor(Math.log2(Math.max(2 ** -10, Math.min(1, ...ends))));
  const high = Math.ceil(Math.log2(Math.min(2 ** 14, Math.max(2, ...ends))));
  const at = (odds) => left + ((Math.min(Math.max(Math.log2(odds), low), high) - low) / (high - low)) * (right - left);
  const foot = top + told.length * step;
  const marks = [];
  const every = Math.max(1, Math.ceil((high - low) / 5));
  for (let x = Math.ceil(low / every) * every; x <= high; x += every) {
    marks.push(rule(at(2 ** x), top - 6, at(2 ** x), foot), words(at(2 ** x), top - 10, num(2 ** x, 2), "faint", { "text-anchor": "middle", "font-size": 11 }));
  }
  marks.push(rule(at(1), top - 6, at(1), foot, "half"));
  told.forEach((row, i) => {
    const y = top + (i + (above ? 0.68 : 0.5)) * step;
    marks.push(above ? label(0, y - 11, row.label, width - 8, true) : label(0, y + 4, row.label, left - 12));
    if (known(row.odds_low) && known(row.odds_high)) marks.push(rule(at(row.odds_low), y, at(row.odds_high), y, "link"));
    marks.push(ink("circle", levelOf(site, row) === 2 ? "observed" : levelOf(site, row) === 1 ? "doubt" : "plain", { cx: at(row.odds), cy: y, r: 4.5 }));
    marks.push(words(width - 4, y + 4, `q ${chance(row.q)}`, "faint", { "text-anchor": "end", "font-size": 11 }));
  });
  marks.push(legend(0, foot + 17, [["observed", `q ≤ ${site.info.fdr}`], ["doubt", "only by a plain test"], ["plain", "neither"]]));
  const number = site.numbers[place];
  const title = `Feature ${number}: odds of its best terms; the dashed line is 1`;
  return savable({ name: `odds-${number}`, title, drawn: drawing(width, foot + 26, title, marks), tsv: () => termsTsv(told) });
}
