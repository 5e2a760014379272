// Where units stand: layers from the bottom up, positions from left to right, within a cell side by side.

const GUTTER = 62; // pixels for the names of layers
const FEET = [30, 66]; // pixels for the names of positions, upright and slanted
const SLANT = 0.75; // radians
const PITCH = 19; // pixels of a node and the room around it
const LINE = 20; // pixels of a line of nodes in a cell
const TIGHT = 17; // the same, where room is scarce
const NARROWEST = PITCH + 8; // pixels of a column
const LAYOUT = { columns: [], rows: [], width: 0, height: 0, zoom: 1, slanted: false, foot: FEET[0] };
let ruler = null;

/** How wide a text is on the canvas. */
function textWidth(text, font = "11px system-ui, sans-serif") {
  ruler ??= document.createElement("canvas").getContext("2d");
  ruler.font = font;
  return ruler.measureText(text).width;
}

/** What is written on an output and on a supernode. */
function inscription(unit) {
  if (unit.kind === "output") return [shortened(unit.label, 14), known(unit.node.probability) ? fixed(unit.node.probability, 2) : null].filter(known).join(" ");
  const all = unit.group.members.length;
  return `${shortened(unit.label, 16)} (${unit.members.length < all ? `${unit.members.length}/` : ""}${all})`;
}

function unitWidth(unit) {
  if (unit.kind !== "output" && unit.kind !== "group") return PITCH;
  unit.text ??= inscription(unit);
  return Math.ceil(textWidth(unit.text)) + 18;
}

/** Break units into lines that are not longer than a width; returns the lines. */
function lines(units, width) {
  const made = [];
  let left = -1;
  for (const unit of units) {
    if (unit.w > left) {
      made.push([]);
      left = width;
    }
    made.at(-1).push(unit);
    left -= unit.w;
  }
  return made;
}

/** Cells by layer and position, their units the most influential first. */
function cellsOf(units) {
  const cells = new Map();
  for (const unit of units) {
    const key = unit.layer * 1e7 + unit.position;
    if (!cells.has(key)) cells.set(key, { layer: unit.layer, position: unit.position, units: [] });
    unit.w = unitWidth(unit);
    cells.get(key).units.push(unit);
  }
  for (const cell of cells.values()) cell.units.sort((a, b) => b.flow - a.flow || a.u - b.u);
  return [...cells.values()];
}

/** The width that a cell asks for: about twice as wide as it is high, and at least its widest unit. */
function wanted(cell) {
  const whole = cell.units.reduce((sum, unit) => sum + unit.w, 0);
  const widest = cell.units.reduce((most, unit) => Math.max(most, unit.w), 0);
  return Math.max(widest, Math.min(whole, PITCH * Math.ceil(Math.sqrt((1.6 * whole) / PITCH))));
}

function nameWidth(position) {
  return Math.min(92, Math.ceil(textWidth(shortened(positionName(position), 14))));
}

/** Give columns or rows the room that there is: none gets less than it must have, and what is over is shared. */
function shareOut(columns, room) {
  const [want, least] = ["w", "least"].map((key) => columns.reduce((sum, column) => sum + column[key], 0));
  const part = want > room ? Math.max(0, room - least) / (want - least || 1) : 1;
  const extra = Math.max(0, room - want) / Math.max(1, columns.length);
  let x = 0;
  for (const column of columns) {
    Object.assign(column, { x, w: column.least + (column.w - column.least) * part + extra });
    x += column.w;
  }
  return x;
}

/** Genes of a cell have no order of their own: then what explains most comes first, and the outputs before all. */
function columnOrder() {
  return chosen.order || (GRAPH.beside.kind === "genes" ? "influence" : "position");
}

function inOrder(columns, cells) {
  if (columnOrder() === "position") return columns.sort((a, b) => a.position - b.position);
  const flow = new Map();
  for (const { layer, position, units } of cells) {
    const whole = layer >= GRAPH.top ? Infinity : units.reduce((sum, unit) => sum + unit.flow, 0);
    flow.set(position, (flow.get(position) ?? 0) + whole);
  }
  return columns.sort((a, b) => (flow.get(b.position) === flow.get(a.position) ? a.position - b.position : flow.get(b.position) - flow.get(a.position)));
}

/** Lay out all units into a frame of this size; it grows beyond the frame where they need more. */
function layOut(units, width, height) {
  const cells = cellsOf(units);
  const byPosition = new Map();
  for (const cell of cells) {
    const column = byPosition.get(cell.position) ?? { position: cell.position, least: NARROWEST, w: nameWidth(cell.position) + 14 };
    byPosition.set(cell.position, column);
    column.least = Math.max(column.least, cell.units.reduce((most, unit) => Math.max(most, unit.w), 0) + 8);
    column.w = Math.max(column.w, column.least, wanted(cell) + 14);
  }
  const columns = inOrder([...byPosition.values()], cells);
  const room = (width - GUTTER - 2) / LAYOUT.zoom;
  const upright = columns.map((column) => Math.max(column.least, (nameWidth(column.position) + 6) / LAYOUT.zoom));
  LAYOUT.slanted = upright.reduce((sum, w) => sum + w, 0) > room;
  if (!LAYOUT.slanted) columns.forEach((column, i) => Object.assign(column, { least: upright[i], w: Math.max(column.w, upright[i]) }));
  const x = shareOut(columns, room);
  LAYOUT.foot = FEET[Number(LAYOUT.slanted)];
  const columnAt = new Map(columns.map((column) => [column.position, column]));
  for (const cell of cells) cell.lines = lines(cell.units, columnAt.get(cell.position).w - 6);
  const deepest = new Map();
  for (const cell of cells) deepest.set(cell.layer, Math.max(deepest.get(cell.layer) ?? 0, cell.lines.length));
  const rows = [];
  for (let layer = GRAPH.top; layer >= -1; layer -= 1) {
    if (layer >= 0 && layer < GRAPH.top ? true : deepest.has(layer)) rows.push({ layer, least: (deepest.get(layer) ?? 1) * TIGHT + 4, w: (deepest.get(layer) ?? 1) * LINE + 16 });
  }
  const y = shareOut(rows, (height - LAYOUT.foot - 2) / LAYOUT.zoom);
  for (const row of rows) Object.assign(row, { y: row.x, h: row.w, line: Math.min(LINE, (row.w - 4) / (deepest.get(row.layer) ?? 1)) });
  const rowAt = new Map(rows.map((row) => [row.layer, row]));
  for (const cell of cells) place(cell, columnAt.get(cell.position), rowAt.get(cell.layer));
  Object.assign(LAYOUT, { columns, rows, width: x * LAYOUT.zoom + GUTTER, height: y * LAYOUT.zoom + LAYOUT.foot });
}

function place(cell, column, row) {
  cell.lines.forEach((line, n) => {
    const whole = line.reduce((sum, unit) => sum + unit.w, 0);
    let at = column.x + (column.w - whole) / 2;
    const y = row.y + row.h / 2 + (n - (cell.lines.length - 1) / 2) * row.line;
    for (const unit of line) {
      unit.x = (at + unit.w / 2) * LAYOUT.zoom + GUTTER;
      unit.y = y * LAYOUT.zoom;
      at += unit.w;
    }
  });
}

/** The unit at a place, or null. */
function unitAtPlace(x, y) {
  let best = null;
  let nearest = Infinity;
  for (const unit of SHOWN.units) {
    const wide = unit.kind === "output" || unit.kind === "group";
    const dx = Math.max(0, Math.abs(unit.x - x) - (wide ? (unit.w * LAYOUT.zoom) / 2 - 4 : 0));
    const distance = Math.hypot(dx, unit.y - y);
    if (distance < nearest && distance <= Math.max(11, 9 * LAYOUT.zoom)) [best, nearest] = [unit, distance];
  }
  return best;
}

/** The unit that lies next in a direction: near, and rather straight on than aside. */
function nextUnit(from, dx, dy) {
  let best = null;
  let least = Infinity;
  for (const unit of SHOWN.units) {
    const along = (unit.x - from.x) * dx + (unit.y - from.y) * dy;
    const aside = Math.abs((unit.x - from.x) * dy) + Math.abs((unit.y - from.y) * dx);
    if (along < 2) continue;
    const cost = along + 3 * aside;
    if (cost < least) [best, least] = [unit, cost];
  }
  return best;
}
