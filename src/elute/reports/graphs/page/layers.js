// From layer to layer: how much the links between two layers weigh, and the strongest of them.

const SOURCES = { all: "all", kept: "features and inputs", errors: "errors" };

/** Sums by the layers of both ends: size, number, share of all that comes into the target's layer. */
function layerSums(which) {
  const { nodes, links, top } = GRAPH;
  const size = new Map();
  const into = new Map();
  for (let i = 0; i < links.n; i += 1) {
    const [from, to] = [nodes[links.source[i]], nodes[links.target[i]]];
    into.set(to.layer, (into.get(to.layer) ?? 0) + Math.abs(links.weight[i]));
    if ((which === "kept" && from.kind === "error") || (which === "errors" && from.kind !== "error")) continue;
    const key = `${from.layer}-${to.layer}`;
    const cell = size.get(key) ?? { weight: 0, count: 0, links: [] };
    cell.weight += Math.abs(links.weight[i]);
    cell.count += 1;
    cell.links.push(i);
    size.set(key, cell);
  }
  for (const [key, cell] of size) cell.share = cell.weight / (into.get(Number(/-(\d+)$/.exec(key)[1])) || 1);
  const layers = Array.from({ length: top + 2 }, (_, i) => i - 1);
  return { size, sources: layers.slice(0, -1), targets: layers.slice(1).reverse() };
}

const layersShown = { which: "all" };

function matrixPart({ size, sources, targets }) {
  const measure = chosen.measure || "weight";
  const most = Math.max(0, ...[...size.values()].map((cell) => cell[measure]));
  const write = measure === "share" ? percent : num;
  const cellOf = (from, to) => {
    const cell = size.get(`${from}-${to}`);
    if (!cell) return el("td", { class: "n none" }, from < to ? "–" : "");
    const key = `${from}-${to}`;
    return el("td", { class: `n${chosen.cell === key ? " mine" : ""}`, "--share": `${Math.round(85 * Math.sqrt(cell[measure] / (most || 1)))}%` },
      el("a", { href: addressOf({ cell: chosen.cell === key ? "" : key }), title: `${num(cell.count)} links from ${layerName(from)} to ${layerName(to)}` }, write(cell[measure])));
  };
  return el("div", { class: "wide matrix", tabindex: 0, role: "group", "aria-label": "Layer to layer" }, el("table", {},
    el("caption", {}, `${MEASURES[measure]} from layer (columns) to layer (rows)`),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "to ↓ from →"), sources.map((from) => el("th", { scope: "col", class: "n" }, layerName(from))))),
    el("tbody", {}, targets.map((to) => el("tr", {}, el("th", { scope: "row" }, layerName(to)), sources.map((from) => cellOf(from, to)))))));
}

function strongestPart({ size }) {
  const cell = chosen.cell ? size.get(chosen.cell) : null;
  const all = cell ? cell.links : [...size.values()].flatMap((one) => one.links);
  const { links, nodes } = GRAPH;
  const order = [...all].sort((a, b) => Math.abs(links.weight[b]) - Math.abs(links.weight[a]) || a - b);
  const [from, to] = (/^(-?\d+)-(\d+)$/.exec(chosen.cell) ?? []).slice(1).map(Number);
  const title = cell ? `The strongest links from ${layerName(from)} to ${layerName(to)}` : chosen.cell ? "No links there; the strongest of all" : "The strongest links of all";
  const heads = [{ text: "From" }, { text: "To" }, { text: "Weight", n: true }, { text: "Share", n: true, title: "Of the sizes of all that comes into the target in this graph" }];
  const most = order.length ? Math.abs(links.weight[order[0]]) : 0;
  const end = (i) => [kindMark(nodes[i].kind), nodeLink(i), below(placeOf(nodes[i]))];
  const row = (i) => [end(links.source[i]), end(links.target[i]), [num(links.weight[i]), bar(links.weight[i], most)], percent(links.share[i])];
  return [el("h3", {}, title, dim(` ${num(order.length)}`)),
    order.length ? savableTable(more((n) => table(title, heads, order.slice(0, n).map(row), "cards"), order.length, 20), {
      name: "links", title: "All of these links", tsv: () => ({ heads: ["source", "source_label", "target", "target_label", "weight", "share"], rows: order.map((i) => [nodes[links.source[i]].id, nodes[links.source[i]].label, nodes[links.target[i]].id, nodes[links.target[i]].label, links.weight[i], links.share[i]]) }),
    }) : null];
}

function drawLayers() {
  const box = find("layers");
  const sums = layerSums(layersShown.which);
  const select = (label, options, now, change) => el("label", {}, `${label} `, el("select", { change: (event) => change(event.target.value) },
    Object.entries(options).map(([value, text]) => el("option", { value, selected: value === now }, text))));
  const measure = select("Show", MEASURES, chosen.measure || "weight", (value) => go({ measure: value }, { replace: true }));
  const which = select("Sources", SOURCES, layersShown.which, (value) => {
    layersShown.which = value;
    drawLayers();
  });
  box.replaceChildren(...[
    el("h2", {}, "From layer to layer"),
    el("p", { class: "note" }, "Sums over all links of the graph, whatever the slider shows. What a layer's features write and what its error is both count as coming from that layer; a link to a layer is one into the features that read there. A click on a number lists its links."),
    el("div", { class: "ways" }, measure, GRAPH.hasErrors ? which : null),
    matrixPart(sums), strongestPart(sums),
  ].flat().filter(Boolean));
}
