// Charts of one feature, in marks that carry their colours, and saving any chart of the page as SVG or PNG.

import { chance, el, num, svg } from "./text.js";
import { INDEX } from "./data.js";

const FONT = "system-ui, 'Helvetica Neue', Arial, sans-serif";
const SCALE = 3; // dots of a PNG to one of the drawing
const [WIDE, NARROW] = [486, 350]; // of a drawing, so that its letters can be read on a desk and on a telephone
const narrow = matchMedia("(max-width: 599px)");
const ruler = document.createElement("canvas").getContext("2d");

function mark(name, kind, attributes, ...children) {
  return svg(name, { class: kind, ...INDEX.kinds[kind], ...attributes }, ...children);
}

function words(x, y, told, kind = "ink", attributes = {}) {
  return mark("text", kind, { x, y, ...attributes }, told);
}

function rule(kind, x1, y1, x2, y2) {
  return mark("line", kind, { x1, y1, x2, y2 });
}

function long(told, size = 12) {
  ruler.font = `${size}px ${FONT}`;
  return ruler.measureText(told).width;
}

/** Text cut to what fits into some width. */
function fitted(whole, room, size = 12) {
  if (long(whole, size) <= room) return whole;
  const letters = Array.from(whole).slice(0, 200);
  while (letters.length > 1 && long(`${letters.join("")}…`, size) > room) letters.pop();
  return `${letters.join("").trimEnd()}…`;
}

/** A chart with what saves it; `name` is that of its files. */
function figure(name, title, width, height, marks) {
  return framed(name, title, svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title, "font-family": FONT, "font-size": 12 },
    mark("rect", "ground", { width, height }), marks));
}

function framed(name, title, drawn) {
  const buttons = ["svg", "png"].map((kind) =>
    el("button", { type: "button", "data-save": kind, "aria-label": `Save as ${kind.toUpperCase()}: ${title}` }, kind.toUpperCase()));
  return el("figure", { class: "chart", "data-name": name }, el("div", { class: "wide", tabindex: 0, role: "group", "aria-label": title }, drawn),
    el("figcaption", {}, el("span", {}, title), el("span", { class: "save" }, buttons)));
}

/** The odds of a feature's best terms with their intervals, on a doubling scale. */
export function forest(number, rows) {
  const known = rows.filter(({ odds }) => odds !== null);
  if (!known.length) return null;
  const width = narrow.matches ? NARROW : WIDE;
  const above = narrow.matches; // a term's name stands above its interval where there is no room beside it
  const [left, right, top, step] = above ? [8, 0.76 * width, 24, 38] : [0.46 * width, 0.8 * width, 24, 24];
  const value = (odds) => (odds === "inf" ? Infinity : odds);
  const ends = known.flatMap((row) => [row.odds_low, row.odds_high, row.odds].map(value)).filter((odds) => odds > 0 && odds < Infinity);
  const low = Math.floor(Math.log2(Math.max(2 ** -10, Math.min(1, ...ends))));
  const high = Math.ceil(Math.log2(Math.min(2 ** 14, Math.max(2, ...ends))));
  const at = (odds) => left + ((Math.min(Math.max(Math.log2(odds), low), high) - low) / (high - low)) * (right - left);
  const foot = top + known.length * step;
  const marks = [];
  const every = Math.max(1, Math.ceil((high - low) / 5));
  for (let x = Math.ceil(low / every) * every; x <= high; x += every) {
    marks.push(rule("rule", at(2 ** x), top - 6, at(2 ** x), foot), words(at(2 ** x), top - 10, num(2 ** x, 2), "dim", { "text-anchor": "middle", "font-size": 11 }));
  }
  marks.push(rule("mark", at(1), top - 6, at(1), foot));
  known.forEach((row, i) => {
    const y = top + (i + (above ? 0.68 : 0.5)) * step;
    const kind = ["plain", "observed", "doubt"][row.level];
    const name = above ? words(0, y - 11, fitted(row.label, width - 8)) : words(0, y + 4, fitted(row.label, left - 12));
    const ground = above ? mark("rect", "ground", { x: 0, y: y - 22, width: long(name.textContent) + 6, height: 15 }) : [];
    marks.push(svg("g", {}, svg("title", {}, `${row.source}: ${row.label}`), ground, name));
    if (row.odds_low !== null && row.odds_high !== null) {
      const [from, to] = [at(value(row.odds_low)), at(value(row.odds_high))];
      marks.push(rule("whisker", from, y, to, y));
    }
    marks.push(mark("circle", kind, { cx: at(value(row.odds)), cy: y, r: 4.5 }));
    marks.push(words(width - 4, y + 4, `q ${chance(row.q)}`, "dim", { "text-anchor": "end", "font-size": 11 }));
  });
  let x = 6;
  for (const [kind, told] of [["observed", `q ≤ ${INDEX.fdr}`], ["doubt", "only by a plain test"], ["plain", "others"]]) {
    marks.push(mark("circle", kind, { cx: x, cy: foot + 15, r: 4 }), words(x + 10, foot + 19, told, "dim", { "font-size": 11 }));
    x += 28 + long(told, 11);
  }
  return figure(`odds-${number}`, `Feature ${number}: odds of its best terms, with intervals; the dashed line is 1`, width, foot + 28, marks);
}

/** Significant terms, and of those above them the ones where ways part. */
export function tree(number, source) {
  const width = narrow.matches ? NARROW : WIDE;
  const [row, step] = [22, narrow.matches ? 13 : 20];
  const marks = [];
  const above = [];
  source.tree.forEach(([term, depth, skipped, q, folded], i) => {
    const [x, y] = [8 + depth * step, 16 + i * row];
    if (depth) marks.push(rule("rule", x - step, 21 + above[depth - 1] * row, x - step, y), rule("rule", x - step, y, x - 5, y));
    above[depth] = i;
    marks.push(mark("circle", q === null ? "plain" : folded ? "s1" : "observed", { cx: x, cy: y, r: q === null ? 3 : 5 }));
    const told = q === null ? "" : `q ${chance(q)}${folded ? ", folded" : ""}`;
    const name = source.labels[term] + (skipped ? ` (${skipped} between)` : "");
    marks.push(svg("g", {}, svg("title", {}, `${source.terms[term]}: ${source.labels[term]}`),
      words(x + 11, y + 4, fitted(name, width - 24 - x - 6.2 * told.length), told ? "ink" : "dim")));
    marks.push(words(width - 4, y + 4, told, "dim", { "text-anchor": "end", "font-size": 11 }));
  });
  return figure(`tree-${source.name}-${number}`, source.caption, width, 16 + source.tree.length * row, marks);
}

const texts = new WeakMap(); // figure: the text of its picture

/** A picture that was drawn elsewhere: an image, in which nothing of its text can act. */
export function picture(number, source, told) {
  const title = `Feature ${number}: the interactions among its genes in ${source.title}`;
  const image = el("img", { src: address(told), alt: title });
  const made = framed(`network-${number}`, title, image);
  made.classList.add("broad");
  texts.set(made, told);
  return made;
}

function address(told) {
  return `data:image/svg+xml;charset=utf-8,${encodeURIComponent(told)}`;
}

function download(blob, name) {
  const href = URL.createObjectURL(blob);
  el("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

/** A chart as the text of a file. The colours are those of its marks: dark on white, whatever the page wears. */
function textOf(made) {
  const copy = made.querySelector("svg").cloneNode(true);
  const { width, height } = copy.viewBox.baseVal;
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  for (const link of copy.querySelectorAll("a")) link.replaceWith(...link.childNodes);
  return new XMLSerializer().serializeToString(copy);
}

/** Save the chart that a button stands at. */
export async function save(button) {
  const made = button.closest("figure");
  const told = texts.get(made) ?? textOf(made);
  const name = `elute-${made.dataset.name.replace(/[^\w.-]+/g, "-")}.${button.dataset.save}`;
  if (button.dataset.save === "svg") {
    download(new Blob([told], { type: "image/svg+xml" }), name);
    return;
  }
  const image = new Image();
  image.src = address(told);
  await image.decode();
  const canvas = el("canvas", { width: Math.round(image.naturalWidth * SCALE), height: Math.round(image.naturalHeight * SCALE) });
  const context = canvas.getContext("2d");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => download(blob, name), "image/png");
}
