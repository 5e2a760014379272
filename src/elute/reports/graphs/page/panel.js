// The panel: an open node or supernode with all its links; else what is pinned, put together, and most influential.

function nodeLink(i) {
  const node = GRAPH.nodes[i];
  return el("a", { href: addressOf({ node: node.id, view: "" }), class: `k-${node.kind}` }, named(node.label, {}, 60));
}

/** Links of some nodes with all others, one row a node at the other end. */
function linksOf(members, way) {
  const inside = new Set(members);
  const [index, other] = way === "in" ? [GRAPH.incoming, GRAPH.links.source] : [GRAPH.outgoing, GRAPH.links.target];
  const rows = new Map();
  for (const i of members) {
    for (const link of index.of(i)) {
      const end = other[link];
      if (inside.has(end)) continue;
      const row = rows.get(end) ?? { end, weight: 0, size: 0, links: 0 };
      row.weight += GRAPH.links.weight[link];
      row.size += Math.abs(GRAPH.links.weight[link]);
      row.links += 1;
      rows.set(end, row);
    }
  }
  const into = members.reduce((sum, i) => sum + GRAPH.into[i], 0);
  const found = [...rows.values()];
  for (const row of found) row.share = row.size / ((way === "in" ? into : GRAPH.into[row.end]) || 1);
  return found.sort((a, b) => b.size - a.size || a.end - b.end);
}

/** What acts on nodes, or what they act on: errors are marked, for no feature explains them. */
function linksPart(members, way) {
  const rows = linksOf(members, way);
  const title = way === "in" ? "What acts on it" : "What it acts on";
  if (!rows.length) return [el("h3", {}, title), el("p", { class: "note" }, "Nothing in this graph.")];
  const most = rows[0].size;
  const lost = rows.filter((row) => GRAPH.nodes[row.end].kind === "error").reduce((sum, row) => sum + row.share, 0);
  const heads = [{ text: way === "in" ? "From" : "To" }, { text: "Weight", n: true, title: "The direct effect of one on the other" }, { text: "Share", n: true, title: "Of the sizes of all that comes into the target in this graph" }];
  const row = ({ end, weight, share, size }) => ({
    kind: `end ${GRAPH.nodes[end].kind}`,
    cells: [[kindMark(GRAPH.nodes[end].kind), nodeLink(end), below(placeOf(GRAPH.nodes[end]))], [num(weight), bar(Math.sign(weight) * size, most)], percent(share)],
  });
  return [el("h3", {}, title, dim(` ${num(rows.length)}`)),
    way === "in" && lost > 0 ? el("p", { class: "note" }, el("span", { class: "flag" }, `${percent(lost)} comes from errors`), ", which no feature explains.") : null,
    more((n) => table(title, heads, rows.slice(0, n).map(row), way), rows.length)];
}

function kindMark(kind) {
  return el("span", { class: `mark m-${kind}`, title: kind, role: "img", "aria-label": kind });
}

function detailsPart({ details }) {
  if (!details) return null;
  const facts = Object.entries(details.facts ?? {});
  const examples = details.examples ?? [];
  const most = Math.max(0, ...examples.map((one) => Math.abs(one.value ?? 0)));
  const heads = [{ text: "Where it fires most" }, { text: "Activation", n: true }];
  return [
    details.label ? el("p", { class: "said" }, named(details.label, {}, 400)) : null,
    facts.length ? factsOf(facts.map(([name, value]) => [named(name, {}, 60), typeof value === "string" ? named(value, {}, 200) : held(value)])) : null,
    examples.length ? more((n) => table("Where it fires most", heads, examples.slice(0, n).map((one) => [named(one.what, {}, 160), [held(one.value), bar(one.value, most)]])), examples.length, 5) : null,
    details.link ? el("p", {}, el("a", { href: details.link }, "More of this feature")) : null,
  ];
}

function nodePart(node) {
  const pinned = pins().includes(node.i);
  const group = groups().findIndex((one) => one.members.includes(node.i));
  const facts = [
    ["layer", layerName(node.layer)], ["position", [String(node.position), " ", named(positionName(node.position), { class: "dim" }, 30)]],
    node.kind === "feature" && ["feature", String(node.feature)], node.kind === "feature" && ["activation", held(node.activation)],
    known(node.probability) && ["probability", fixed(node.probability, 3)], node.kind !== "output" && ["influence", num(node.flow), "What comes from it to the outputs by all paths, in this graph"],
    node.kind !== "output" && ["with those above it", percent(node.cumulative), "The share of influence that this node and all stronger ones carry together"],
  ];
  return [
    el("div", { class: "head" }, kindMark(node.kind), el("span", { class: "chip" }, node.kind), el("code", { class: "small dim" }, shortened(node.id, 60))),
    el("h2", { tabindex: -1 }, named(node.label, {}, 300)),
    el("div", { class: "ways" },
      el("button", { type: "button", "aria-pressed": String(pinned), click: () => togglePin(node.i) }, pinned ? "Unpin" : "Pin"),
      el("button", { type: "button", click: () => pick(node.i) }, picked.has(node.i) ? "Picked" : "Pick for a supernode"),
      el("button", { type: "button", click: () => go({ node: "" }) }, "Close")),
    node.kind === "error" ? el("p", { class: "alarm" }, "An error: what the dictionaries leave of this layer at this position. No feature explains it.") : null,
    group >= 0 ? el("p", { class: "note" }, "In supernode ", el("a", { href: addressOf({ node: `supernode ${group}` }) }, named(groups()[group].label, {}, 60)), ". ",
      el("button", { type: "button", class: "plainly", click: () => leaveGroup(group, node.i) }, "Take it out")) : null,
    factsOf(facts), detailsPart(node), linksPart([node.i], "in"), linksPart([node.i], "out"),
  ];
}

function groupPart(group, number) {
  const open = opened().has(number);
  const name = el("input", { value: group.label, maxlength: 200, "aria-label": "Name of the supernode", change: (event) => rename(number, event.target.value.trim() || group.label) });
  const members = [...group.members].sort((a, b) => GRAPH.nodes[b].flow - GRAPH.nodes[a].flow);
  const heads = [{ text: "Node" }, { text: "Influence", n: true }];
  return [
    el("div", { class: "head" }, kindMark("group"), el("span", { class: "chip" }, `supernode of ${members.length}`)),
    el("h2", { tabindex: -1 }, named(group.label, {}, 300)),
    el("div", { class: "ways" }, name,
      el("button", { type: "button", "aria-expanded": String(open), click: () => toggleGroup(number) }, open ? "Fold" : "Expand"),
      el("button", { type: "button", click: () => dissolve(number) }, "Dissolve"),
      el("button", { type: "button", click: () => go({ node: "" }) }, "Close")),
    more((n) => table("Nodes of the supernode", heads, members.slice(0, n).map((i) => [[kindMark(GRAPH.nodes[i].kind), nodeLink(i), below(placeOf(GRAPH.nodes[i]))], num(GRAPH.nodes[i].flow)])), members.length, 8),
    linksPart(members, "in"), linksPart(members, "out"),
  ];
}

function ranked(title, numbers, first) {
  if (!numbers.length) return null;
  const most = Math.max(...numbers.map((i) => GRAPH.nodes[i].flow));
  const heads = [{ text: "Node" }, { text: "Influence", n: true, title: "What comes from it to the outputs by all paths" }];
  const row = (i) => ({ kind: `end ${GRAPH.nodes[i].kind}`, cells: [[kindMark(GRAPH.nodes[i].kind), nodeLink(i), below(placeOf(GRAPH.nodes[i]))], GRAPH.nodes[i].kind === "output" ? (known(GRAPH.nodes[i].probability) ? `p ${fixed(GRAPH.nodes[i].probability)}` : "") : [num(GRAPH.nodes[i].flow), bar(GRAPH.nodes[i].flow, most)]] });
  return [el("h3", {}, title, dim(` ${num(numbers.length)}`)), more((n) => table(title, heads, numbers.slice(0, n).map(row)), numbers.length, first)];
}

function overview() {
  const words = searched();
  const at = chosen.at === "" ? null : Number(chosen.at);
  const order = GRAPH.nodes.map((node) => node.i).sort((a, b) => GRAPH.nodes[b].flow - GRAPH.nodes[a].flow || a - b);
  const inner = order.filter((i) => GRAPH.nodes[i].kind !== "output" && (at === null || GRAPH.nodes[i].position === at));
  const hits = words.length ? SHOWN.units.filter((unit) => found(unit, words)).sort((a, b) => b.flow - a.flow).flatMap((unit) => unit.members) : [];
  const made = groups();
  const now = opened();
  const row = (one, number) => el("li", {}, kindMark("group"), el("a", { href: addressOf({ node: `supernode ${number}` }) }, named(one.label, {}, 60)), dim(` ${one.members.length} nodes `),
    el("button", { type: "button", class: "plainly", "aria-expanded": String(now.has(number)), click: () => toggleGroup(number) }, now.has(number) ? "Fold" : "Expand"));
  return [
    words.length ? ranked(`Found`, hits, 12) ?? el("p", { class: "note" }, "Nothing that is shown is called that.") : null,
    at === null ? ranked("Outputs", order.filter((i) => GRAPH.nodes[i].kind === "output").sort((a, b) => GRAPH.nodes[b].chance - GRAPH.nodes[a].chance), 10) : null,
    ranked("Pinned", pins(), 12),
    made.length ? [el("h3", {}, "Supernodes", dim(` ${num(made.length)}`)), more((n) => el("ul", { class: "plain" }, made.slice(0, n).map(row)), made.length, 6)] : null,
    ranked(at === null ? "Most influential" : `At position ${at}, ${shortened(positionName(at), 30)}`, inner, 12),
    el("p", { class: "note" }, "A click opens a node; Shift and a click, or x, picks it for a supernode."),
  ];
}

function drawPanel() {
  const panel = find("panel");
  const group = /^supernode (\d{1,4})$/.exec(chosen.node);
  const i = GRAPH.number.get(chosen.node);
  const made = group && i === undefined ? groups()[Number(group[1])] : null;
  let parts = overview;
  if (i !== undefined) parts = () => nodePart(GRAPH.nodes[i]);
  else if (made) parts = () => groupPart(made, Number(group[1]));
  const lost = chosen.node && i === undefined && !made ? el("p", { class: "alarm" }, "There is no such node in this graph: ", named(chosen.node, {}, 60)) : null;
  panel.replaceChildren(...[lost, ...parts()].flat(Infinity).filter(Boolean));
}
