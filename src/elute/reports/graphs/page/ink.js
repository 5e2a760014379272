// Marks on the canvas: nodes by kind, links by sign and strength, the names of layers and positions.

const INK = {};
const INKS = { ground: "--ground", line: "--line", text: "--text", dim: "--dim", feature: "--held", token: "--gene", output: "--yes", error: "--no", plus: "--held", minus: "--minus", mark: "--mark", mine: "--mine", raised: "--raised" };
const MOST_DRAWN = 20_000; // links at once
const OF_A_NODE = 300; // links of one node each way
const STRONGEST = 150;

/** Take the colours that the page wears. */
function readInk() {
  const style = getComputedStyle(document.documentElement);
  for (const [name, variable] of Object.entries(INKS)) INK[name] = style.getPropertyValue(variable).trim();
}

function radius(unit) {
  const whole = SHOWN.mostFlow || 1;
  return (3.2 + 5.2 * Math.sqrt(Math.max(0, unit.flow) / whole)) * Math.min(1.6, Math.max(0.8, LAYOUT.zoom));
}

function outline(context, unit) {
  const r = radius(unit);
  const { x, y } = unit;
  context.beginPath();
  if (unit.kind === "feature") context.arc(x, y, r, 0, 7);
  else if (unit.kind === "token") context.rect(x - r * 0.9, y - r * 0.9, 1.8 * r, 1.8 * r);
  else if (unit.kind === "error") {
    context.moveTo(x, y - r * 1.25);
    context.lineTo(x + r * 1.25, y);
    context.lineTo(x, y + r * 1.25);
    context.lineTo(x - r * 1.25, y);
    context.closePath();
  } else {
    const w = (unit.w - 6) * Math.max(1, LAYOUT.zoom);
    context.roundRect(x - w / 2, y - 8.5, w, 17, unit.kind === "group" ? 4 : 8.5);
  }
}

/** An error is hollow and crossed: it stands for what no feature explains. */
function drawUnit(context, unit, { faded, open, picked_, hit }) {
  context.globalAlpha = faded ? 0.22 : 1;
  outline(context, unit);
  const wide = unit.kind === "output" || unit.kind === "group";
  const colour = unit.kind === "group" ? INK.feature : INK[unit.kind];
  context.fillStyle = unit.kind === "error" || wide ? INK.ground : colour;
  context.fill();
  context.strokeStyle = colour;
  context.lineWidth = unit.kind === "group" ? 2.2 : 1.5;
  if (unit.kind === "error" || wide) context.stroke();
  if (unit.kind === "error") {
    const r = radius(unit) * 0.55;
    context.beginPath();
    context.moveTo(unit.x - r, unit.y - r);
    context.lineTo(unit.x + r, unit.y + r);
    context.moveTo(unit.x + r, unit.y - r);
    context.lineTo(unit.x - r, unit.y + r);
    context.stroke();
  }
  if (wide) {
    context.fillStyle = INK.text;
    context.textAlign = "center";
    context.font = "11px system-ui, sans-serif";
    context.fillText(unit.text, unit.x, unit.y + 0.5);
  }
  const pinned = unit.members.some((i) => SHOWN.pinned.has(i));
  if (pinned || open || picked_ || hit) ring(context, unit, { pinned, open, picked_, hit });
  context.globalAlpha = 1;
}

function ring(context, unit, { pinned, open, picked_, hit }) {
  const wide = unit.kind === "output" || unit.kind === "group";
  const around = (by) => {
    context.beginPath();
    if (wide) {
      const w = (unit.w - 6) * Math.max(1, LAYOUT.zoom) + 2 * by;
      context.roundRect(unit.x - w / 2, unit.y - 8.5 - by, w, 17 + 2 * by, 8);
    } else context.arc(unit.x, unit.y, radius(unit) * (unit.kind === "error" ? 1.25 : 1.05) + by, 0, 7);
    context.stroke();
  };
  context.lineWidth = 2;
  if (pinned || hit) {
    context.strokeStyle = INK.mark;
    context.setLineDash(hit && !pinned ? [3, 2] : []);
    around(2.5);
  }
  context.setLineDash(picked_ ? [2, 2] : []);
  if (open || picked_) {
    context.strokeStyle = INK.text;
    around(pinned ? 5.5 : 2.5);
  }
  context.setLineDash([]);
}

/** Which links are drawn: those of one unit, the strongest, or all. */
function drawnLinks(focus) {
  const { links, strongest } = SHOWN;
  if (focus) {
    const [into, out] = [links.incoming.of(focus.u), links.outgoing.of(focus.u)];
    return { list: [...into.subarray(0, OF_A_NODE), ...out.subarray(0, OF_A_NODE)], of: into.length + out.length, size: (i) => links.share[i] };
  }
  if (chosen.links === "") return { list: [], of: 0, size: () => 0 };
  const list = strongest.subarray(0, chosen.links === "all" ? MOST_DRAWN : STRONGEST);
  const most = list.length ? links.score[list[0]] || 1 : 1;
  return { list, of: links.n, size: (i) => links.score[i] / most };
}

/** Draw links in few strokes: those of one sign and about one strength are one path. */
function drawLinks(context, { list, size }) {
  const { units, links } = SHOWN;
  const paths = new Map();
  for (let n = list.length - 1; n >= 0; n -= 1) {
    const i = list[n];
    const [a, b] = [units[links.source[i]], units[links.target[i]]];
    const level = Math.min(5, Math.floor(6 * Math.sqrt(size(i))));
    const key = `${level}${links.weight[i] < 0 ? "-" : "+"}${a.kind === "error" ? "e" : ""}`;
    if (!paths.has(key)) paths.set(key, { level, minus: links.weight[i] < 0, error: a.kind === "error", path: new Path2D() });
    const { path } = paths.get(key);
    const half = Math.max(24, Math.abs(a.y - b.y) / 2);
    const [y1, y2] = [a.y - (b.y < a.y ? 4 : -4), b.y + (b.y < a.y ? 4 : -4)];
    path.moveTo(a.x, y1);
    if (list.length > 4000) path.lineTo(b.x, y2);
    else path.bezierCurveTo(a.x, y1 - half, b.x, y2 + half, b.x, y2);
  }
  const crowd = list.length > 2000 ? 0.35 : list.length > 400 ? 0.6 : 1;
  for (const { level, minus, error, path } of [...paths.values()].sort((x, y) => x.level - y.level)) {
    context.globalAlpha = (0.25 + 0.13 * level) * crowd;
    context.strokeStyle = minus ? INK.minus : INK.plus;
    context.lineWidth = 0.7 + 0.75 * level;
    context.setLineDash(error && list.length <= 2000 ? [4, 3] : []);
    context.stroke(path);
  }
  context.setLineDash([]);
  context.globalAlpha = 1;
}

/** Bands of layers and of the marked position, below everything. */
function drawBands(context, view) {
  const { columns, rows, zoom } = LAYOUT;
  const marked = chosen.at === "" ? null : columns.find((column) => column.position === Number(chosen.at));
  if (marked) {
    context.fillStyle = INK.mine;
    context.fillRect(marked.x * zoom + GUTTER, view.top, marked.w * zoom, view.height);
  }
  context.strokeStyle = INK.line;
  context.lineWidth = 1;
  context.beginPath();
  for (const row of rows.slice(1)) {
    const y = Math.round(row.y * zoom) + 0.5;
    context.moveTo(view.left, y);
    context.lineTo(view.left + view.width, y);
  }
  context.stroke();
}

/** Names of layers at the left and of positions below; both stay in sight. */
function drawNames(context, view) {
  const { columns, rows, zoom } = LAYOUT;
  const foot = Math.min(view.height, LAYOUT.height) - LAYOUT.foot;
  context.fillStyle = INK.raised;
  context.fillRect(0, 0, GUTTER - 6, view.height);
  context.fillRect(0, foot, view.width, view.height - foot);
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = INK.dim;
  context.textAlign = "left";
  for (const row of rows) {
    const y = (row.y + row.h / 2) * zoom - view.top;
    if (y > 4 && y < foot - 6) context.fillText(layerName(row.layer), 6, y);
  }
  context.font = "11px system-ui, sans-serif";
  context.textAlign = LAYOUT.slanted ? "right" : "center";
  context.save();
  context.beginPath();
  context.rect(LAYOUT.slanted ? 0 : GUTTER - 6, foot, view.width, LAYOUT.foot);
  context.clip();
  for (const column of columns) {
    const x = (column.x + column.w / 2) * zoom + GUTTER - view.left;
    if (x < (LAYOUT.slanted ? GUTTER - 6 : -60) || x > view.width + 60) continue;
    context.fillStyle = String(column.position) === chosen.at ? INK.text : INK.dim;
    if (!LAYOUT.slanted) {
      context.fillText(shortened(positionName(column.position), 14), x, foot + 15);
      continue;
    }
    context.save();
    context.translate(x + 4, foot + 8);
    context.rotate(-SLANT);
    context.fillText(shortened(positionName(column.position), 14), 0, 0);
    context.restore();
  }
  context.restore();
}
