// What stands beside the graph: the tour that is being made, or the cell's genes; both lead to their position.

const SIDE = { size: 260, edge: 14, first: 10 };
let marks = new Map(); // position: what shows it

/** How much of what begins at inputs begins at each position; null where the graph has no tokens. */
function fromPositions() {
  const found = new Float64Array(GRAPH.positions);
  let whole = 0;
  for (const node of GRAPH.nodes) {
    if (node.kind === "token") found[node.position] += node.flow;
    if (node.kind === "token" || node.kind === "error") whole += node.flow;
  }
  return whole > 0 && GRAPH.nodes.some((node) => node.kind === "token") ? found.map((flow) => flow / whole) : null;
}

function drawBeside() {
  const box = find("beside");
  const { kind } = GRAPH.beside;
  box.hidden = !kind;
  if (!kind) return;
  marks = new Map();
  box.replaceChildren(kind === "tour" ? tourPart() : genesPart());
  markBeside(unitOf(chosen.node));
}

/** Bring places into the picture, as they lie, y upwards. */
function scaled(coords) {
  const low = [0, 1].map((axis) => Math.min(...coords.map((pair) => pair[axis])));
  const span = Math.max(1e-9, ...[0, 1].map((axis) => Math.max(...coords.map((pair) => pair[axis])) - low[axis]));
  const room = SIDE.size - 2 * SIDE.edge;
  return coords.map(([x, y]) => [SIDE.edge + ((x - low[0]) / span) * room, SIDE.edge + room - ((y - low[1]) / span) * room]);
}

function tourPart() {
  const { coords, tour, at, positions } = GRAPH.beside;
  const places = scaled(coords);
  const shares = fromPositions();
  const most = shares ? Math.max(...shares, 1e-12) : 1;
  const made = svg("svg", { viewBox: `0 0 ${SIDE.size} ${SIDE.size}`, role: "img", "aria-label": "The instance and its tour" });
  const path = (nodes, kind) => nodes.length > 1 && svg("polyline", { class: kind, points: nodes.map((i) => places[i].map((v) => v.toFixed(1)).join(",")).join(" "), fill: "none" });
  const steps = at === null ? tour : tour.slice(0, at + 1);
  made.append(...[path(tour.length ? [...tour, tour[0]] : [], "tour-all"), path(steps, "tour-done")].filter(Boolean));
  const chances = new Map(GRAPH.nodes.filter((node) => node.kind === "output").map((node) => [node.feature, node.chance]));
  const positionAt = new Map(positions.map((place, position) => [place, position]));
  places.forEach(([x, y], i) => {
    const position = positionAt.get(i);
    const share = position === undefined || !shares ? 0 : shares[position];
    const told = [`place ${i}`, shares && position !== undefined ? `${percent(share)} of influence begins here` : null, chances.has(i) ? `next with p ${fixed(chances.get(i))}` : null, at !== null && tour[at] === i ? "the tour is here" : null];
    const dot = svg("g", { class: "place", "data-position": position ?? null, tabindex: position === undefined ? null : 0, role: position === undefined ? null : "button", "aria-label": told.filter(Boolean).join(", ") },
      svg("title", {}, told.filter(Boolean).join(", ")),
      svg("circle", { cx: x, cy: y, r: 9, class: "touch" }),
      chances.has(i) && svg("circle", { cx: x, cy: y, r: 5 + 7 * Math.sqrt(chances.get(i)), class: "next" }),
      svg("circle", { cx: x, cy: y, r: 2.2 + 5 * Math.sqrt(share / most), class: "origin" }),
      at !== null && tour[at] === i && svg("rect", { x: x - 8, y: y - 8, width: 16, height: 16, class: "here", fill: "none" }));
    if (position !== undefined) marks.set(position, dot);
    made.append(dot);
  });
  return el("figure", { class: "instance" }, made, el("figcaption", {}, el("span", {},
    at === null ? "The tour." : `The tour at step ${at}: the square is where it is.`,
    shares ? " A dot is as large as the influence that begins there;" : " Dots are places;", " a green ring is a place that may come next, as likely as it is wide. A click marks its position.")));
}

function genesPart() {
  const { genes, values } = GRAPH.beside;
  const shares = fromPositions();
  const most = shares ? Math.max(...shares) : 0;
  const words = searched();
  const order = [...genes.keys()].sort((a, b) => (shares ? shares[b] - shares[a] : 0) || (values[b] ?? -Infinity) - (values[a] ?? -Infinity) || a - b);
  const some = order.filter((i) => !words.length || words.every((word) => genes[i].toLowerCase().includes(word)));
  const row = (i) => {
    const button = el("button", { type: "button", class: "plainly", "data-position": i }, named(genes[i], {}, 40));
    marks.set(i, button);
    return [button, held(values[i]), shares ? [percent(shares[i]), bar(shares[i], most)] : dim("–")];
  };
  const heads = [{ text: "Gene" }, { text: "Value", n: true, title: "What the model was given" }, { text: "Influence", n: true, title: "The share of all that begins at inputs and errors" }];
  const title = `Genes of the cell: ${words.length && some.length < genes.length ? `${num(some.length)} of ` : ""}${num(genes.length)}`;
  return [el("h3", {}, title), some.length ? more((n) => table(title, heads, some.slice(0, n).map(row)), some.length, SIDE.first) : el("p", { class: "note" }, "No gene is called that.")]
    .reduce((box, part) => { box.append(part); return box; }, el("div", {}));
}

/** A long list a part at a time: `draw` gives its first n rows. */
function more(draw, all, first = 12) {
  const box = el("div", { class: "part" });
  const show = (n) => {
    box.replaceChildren(draw(n));
    if (n < all) box.append(el("button", { type: "button", class: "further", click: () => show(Math.min(all, n < 100 ? n + 50 : 4 * n)) }, `More (${num(all - n)})`));
  };
  show(Math.min(first, all));
  return box;
}

/** Show where a unit stands in what is beside. */
function markBeside(unit) {
  for (const [position, mark] of marks) mark.classList.toggle("marked", unit?.position === position || chosen.at === String(position));
}

function listenToBeside() {
  const choose = (event) => {
    const mark = event.target.closest?.("[data-position]");
    if (!mark || mark.dataset.position === undefined) return false;
    const position = mark.dataset.position;
    go({ at: chosen.at === position ? "" : position });
    const column = LAYOUT.columns.find((one) => String(one.position) === position);
    if (column) find("scroll").scrollLeft = column.x * LAYOUT.zoom - find("scroll").clientWidth / 2;
    return true;
  };
  find("beside").addEventListener("click", choose);
  find("beside").addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === " ") && event.target.matches("g") && choose(event)) event.preventDefault();
  });
}
