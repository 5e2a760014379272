// The graph: what the pointer and the keys do, and when it is drawn anew.

const look = { hovered: null, keyed: null, frame: 0, ratio: 1 };
const ARROWS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

function view() {
  const box = find("scroll");
  return { left: box.scrollLeft, top: box.scrollTop, width: box.clientWidth, height: box.clientHeight };
}

/** Lay out what is shown, and draw it. */
function arrange() {
  const box = find("scroll");
  if (!box.clientWidth) return;
  SHOWN.mostFlow = SHOWN.units.reduce((most, unit) => (unit.kind === "output" || unit.kind === "group" ? most : Math.max(most, unit.flow)), 0);
  layOut(SHOWN.units, box.clientWidth, box.clientHeight);
  find("space").style.width = `${Math.floor(LAYOUT.width)}px`;
  find("space").style.height = `${Math.floor(LAYOUT.height)}px`;
  const canvas = find("canvas");
  look.ratio = Math.min(3, devicePixelRatio || 1);
  canvas.width = Math.round(box.clientWidth * look.ratio);
  canvas.height = Math.round(box.clientHeight * look.ratio);
  canvas.style.width = `${box.clientWidth}px`;
  canvas.style.height = `${box.clientHeight}px`;
  look.hovered = null;
  if (!look.begun) {
    look.begun = true;
    const first = unitOf(chosen.node) ?? SHOWN.units.find((unit) => unit.kind === "output");
    if (first) reveal(first);
  }
  paint();
}

/** Draw at the next frame. */
function paint() {
  if (!look.frame) look.frame = requestAnimationFrame(paintNow);
}

/** The unit whose links are drawn: under the pointer, under the keys, or the open one. */
function focused() {
  return look.hovered ?? look.keyed ?? (chosen.links === "" ? unitOf(chosen.node) : null);
}

function paintNow() {
  look.frame = 0;
  const start = performance.now();
  const context = find("canvas").getContext("2d");
  const at = view();
  context.setTransform(look.ratio, 0, 0, look.ratio, 0, 0);
  context.fillStyle = INK.ground;
  context.fillRect(0, 0, at.width, at.height);
  context.textBaseline = "middle";
  context.translate(-at.left, -at.top);
  drawBands(context, at);
  const focus = focused();
  const drawn = drawnLinks(focus);
  drawLinks(context, drawn);
  const { links, units } = SHOWN;
  const near = focus ? new Set([focus.u, ...drawn.list.map((i) => links.source[i]), ...drawn.list.map((i) => links.target[i])]) : null;
  const words = searched();
  const open = unitOf(chosen.node);
  for (const unit of units) {
    if (unit.x < at.left - 90 || unit.x > at.left + at.width + 90 || unit.y < at.top - 20 || unit.y > at.top + at.height + 20) continue;
    const hit = found(unit, words);
    drawUnit(context, unit, {
      faded: near ? !near.has(unit.u) : words.length > 0 && !hit,
      open: unit === open || unit === look.keyed, picked_: unit.members.some((i) => picked.has(i)), hit,
    });
  }
  context.translate(at.left, at.top);
  drawNames(context, at);
  tellDrawn(drawn, focus);
  find("canvas").dataset.at = open ? `${Math.round(open.x - at.left)},${Math.round(open.y - at.top)}` : ""; // for who looks on by program
  find("canvas").dataset.drawn = String(drawn.list.length);
  find("canvas").dataset.took = String(Math.round(10 * (performance.now() - start)) / 10);
}

function tellDrawn({ list, of }, focus) {
  const all = GRAPH.nodes.length;
  const parts = [`${num(SHOWN.nodes)} of ${num(all)} nodes, with ${percent(SHOWN.share)} of influence`, `${num(SHOWN.between)} of ${num(GRAPH.links.n)} links`];
  const words = searched();
  if (words.length) parts.push(`${num(SHOWN.units.filter((unit) => found(unit, words)).length)} found`);
  if (list.length < of) parts.push(`${num(list.length)} links drawn${focus ? " of this node" : ", the strongest"}`);
  find("count").textContent = `${parts.join("; ")}.`;
}

function showTip(unit, x, y) {
  const tip = find("tip");
  tip.hidden = !unit;
  if (!unit) return;
  tip.replaceChildren(
    el("strong", {}, named(unit.label, {}, 120)),
    el("span", { class: "below" }, `${unit.kind === "group" ? `supernode of ${unit.members.length}` : unit.kind}, ${placeOf(unit.node)}`),
    el("span", { class: "below" }, unit.kind === "output" ? (known(unit.node.probability) ? `p ${num(unit.node.probability)}` : "") : [`influence ${num(unit.flow)}`, known(unit.node.activation) && !unit.group ? `, activation ${num(unit.node.activation)}` : ""]),
    el("span", { class: "below" }, `${SHOWN.links.incoming.of(unit.u).length} links in, ${SHOWN.links.outgoing.of(unit.u).length} out`));
  const frame = find("frame").getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, frame.width - tip.offsetWidth - 6))}px`;
  tip.style.top = `${y + 16 + tip.offsetHeight > frame.height ? Math.max(2, y - tip.offsetHeight - 12) : y + 16}px`;
}

function hover(unit, x = 0, y = 0) {
  showTip(unit, x, y);
  if (unit === look.hovered) return;
  look.hovered = unit;
  find("canvas").classList.toggle("over", Boolean(unit));
  markBeside(unit);
  paint();
}

function underPointer(event) {
  const box = find("canvas").getBoundingClientRect();
  const at = view();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const inside = x > GUTTER - 6 && y < Math.min(at.height, LAYOUT.height) - LAYOUT.foot;
  return { x, y, unit: inside ? unitAtPlace(x + at.left, y + at.top) : null, column: inside ? null : LAYOUT.columns.find((one) => x + at.left >= one.x * LAYOUT.zoom + GUTTER && x + at.left < (one.x + one.w) * LAYOUT.zoom + GUTTER) };
}

/** Bring a unit into sight. */
function reveal(unit) {
  const box = find("scroll");
  const at = view();
  if (unit.x < at.left + GUTTER + 20 || unit.x > at.left + at.width - 30) box.scrollLeft = unit.x - at.width / 2;
  if (unit.y < at.top + 20 || unit.y > at.top + at.height - LAYOUT.foot - 20) box.scrollTop = unit.y - at.height / 2;
}

function tell(unit) {
  find("told").textContent = `${shortened(unit.label, 120)}, ${unit.kind === "group" ? "supernode" : unit.kind}, ${placeOf(unit.node)}, influence ${num(unit.flow)}.`;
}

/** Keys of the graph; whether one did something. */
function graphKeys(event) {
  const now = look.keyed ?? unitOf(chosen.node);
  if (Object.hasOwn(ARROWS, event.key)) {
    const next = now ? nextUnit(now, ...ARROWS[event.key]) : [...SHOWN.units].sort((a, b) => b.flow - a.flow)[0];
    if (!next) return true;
    look.keyed = next;
    look.hovered = null;
    showTip(null);
    reveal(next);
    markBeside(next);
    tell(next);
    paint();
  } else if (event.key === "Enter" && look.keyed) go({ node: look.keyed.key });
  else if (event.key === "p" && now && !now.group) togglePin(now.members[0]);
  else if (event.key === "x" && now && !now.group) pick(now.members[0]);
  else if (event.key === "e" && now?.group) toggleGroup(now.group.number);
  else return false;
  return true;
}

function zoom(by) {
  LAYOUT.zoom = Math.min(4, Math.max(0.5, LAYOUT.zoom * by));
  arrange();
}

function listenToCanvas() {
  const canvas = find("canvas");
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse") return;
    const { x, y, unit } = underPointer(event);
    look.keyed = null;
    hover(unit, x, y);
  });
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("click", (event) => {
    const { unit, column } = underPointer(event);
    look.keyed = null;
    if (column) go({ at: String(column.position) === chosen.at ? "" : String(column.position) });
    else if (unit && !unit.group && (event.shiftKey || event.ctrlKey || event.metaKey)) pick(unit.members[0]);
    else go({ node: unit && unit.key !== chosen.node ? unit.key : "" });
  });
  canvas.addEventListener("dblclick", (event) => {
    const { unit } = underPointer(event);
    if (unit?.group) toggleGroup(unit.group.number);
  });
  find("scroll").addEventListener("scroll", () => {
    hover(null);
    paint();
  });
  find("scroll").addEventListener("blur", () => {
    look.keyed = null;
    paint();
  });
  find("zoom-in").addEventListener("click", () => zoom(1.25));
  find("zoom-out").addEventListener("click", () => zoom(0.8));
  new ResizeObserver(arrange).observe(find("scroll"));
}
