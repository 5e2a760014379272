// What is drawn: nodes that pass the controls, and supernodes that are folded together, with the links between them.

let SHOWN = null; // units, their links, and how much that is of all
let shownFor = null;

/** Whether a node passes the controls. */
function passes(node, asked) {
  if (asked.pinned.has(node.i) || asked.kept?.has(node.i) || node.i === asked.openNode) return true;
  if (node.kind === "output") return true;
  if (asked.only) return false;
  if (node.kind === "error" && !asked.errors) return false;
  return asked.least >= 100 || node.before < asked.least / 100;
}

/** The share of influence asked for: the reader's; else as much as a look takes in. */
function least() {
  if (chosen.least !== "") return Number(chosen.least);
  const inner = GRAPH.nodes.filter((node) => node.kind !== "output");
  if (inner.length <= MOST_AT_ONCE) return 100;
  const before = inner.map((node) => node.before).sort((a, b) => a - b);
  return Math.max(5, Math.floor(100 * before[MOST_AT_ONCE]));
}
const MOST_AT_ONCE = 500; // nodes of a first look

function unitFrom(members, group, label) {
  const first = members.reduce((best, i) => (GRAPH.nodes[i].flow > GRAPH.nodes[best].flow ? i : best), members[0]);
  const node = GRAPH.nodes[first];
  const flow = members.reduce((sum, i) => sum + GRAPH.nodes[i].flow, 0);
  return { members, group, label, flow, kind: group ? "group" : node.kind, layer: node.layer, position: node.position, node, key: group ? `supernode ${group.number}` : node.id };
}

function makeUnits(asked) {
  const unitAt = new Int32Array(GRAPH.nodes.length).fill(-1);
  const units = [];
  const add = (unit) => {
    unit.u = units.length;
    for (const i of unit.members) unitAt[i] = unit.u;
    units.push(unit);
  };
  asked.groups.forEach((group, number) => {
    if (asked.open.has(number)) return;
    const members = group.members.filter((i) => passes(GRAPH.nodes[i], asked));
    if (members.length) add(unitFrom(members, { ...group, number }, group.label));
  });
  for (const node of GRAPH.nodes) {
    if (unitAt[node.i] < 0 && passes(node, asked)) add(unitFrom([node.i], null, node.label));
  }
  return { units, unitAt };
}

/** Links between units; those that run side by side into or out of a supernode are one. */
function makeLinks(units, unitAt) {
  const { source, target, weight, score, n } = GRAPH.links;
  const [from, to, weights, scores, counts, sizes] = [[], [], [], [], [], []];
  const joint = new Map();
  for (let i = 0; i < n; i += 1) {
    const a = unitAt[source[i]];
    const b = unitAt[target[i]];
    if (a < 0 || b < 0 || a === b) continue;
    const key = units[a].group || units[b].group ? a * units.length + b : null;
    const at = key === null ? undefined : joint.get(key);
    if (at === undefined) {
      if (key !== null) joint.set(key, from.length);
      from.push(a);
      to.push(b);
      weights.push(weight[i]);
      scores.push(score[i]);
      counts.push(1);
      sizes.push(Math.abs(weight[i]));
    } else {
      weights[at] += weight[i];
      scores[at] += score[i];
      counts[at] += 1;
      sizes[at] += Math.abs(weight[i]);
    }
  }
  const into = units.map((unit) => unit.members.reduce((sum, i) => sum + GRAPH.into[i], 0));
  const shares = sizes.map((size, i) => (into[to[i]] > 0 ? size / into[to[i]] : 0));
  return {
    n: from.length, source: from, target: to, weight: weights, score: scores, count: counts, share: shares,
    incoming: byEnd(to, shares, units.length), outgoing: byEnd(from, shares, units.length),
  };
}

/** Work out what is shown, unless that is known already. */
function refreshUnits() {
  const open = chosen.node && GRAPH.number.has(chosen.node) ? GRAPH.number.get(chosen.node) : -1;
  const name = JSON.stringify([chosen.least, chosen.errors, chosen.only, chosen.pins, chosen.groups, chosen.open, chosen.order, open]);
  if (name === shownFor) return false;
  shownFor = name;
  const asked = { least: least(), errors: chosen.errors !== "no", only: chosen.only === "pins", pinned: new Set(pins()), groups: groups(), open: opened(), openNode: open };
  if (asked.only) asked.kept = new Set(asked.groups.flatMap((group) => group.members));
  const { units, unitAt } = makeUnits(asked);
  const links = makeLinks(units, unitAt);
  const nodes = unitAt.reduce((sum, u) => sum + (u >= 0), 0);
  const flow = GRAPH.nodes.reduce((sum, node) => sum + (node.kind !== "output" && unitAt[node.i] >= 0 ? node.flow : 0), 0);
  const strongest = Uint32Array.from(links.score.keys()).sort((a, b) => links.score[b] - links.score[a] || a - b);
  const between = GRAPH.links.source.reduce((sum, a, i) => sum + (unitAt[a] >= 0 && unitAt[GRAPH.links.target[i]] >= 0), 0);
  SHOWN = { units, unitAt, links, strongest, nodes, between, share: GRAPH.whole > 0 ? flow / GRAPH.whole : 1, pinned: asked.pinned };
  return true;
}

/** The unit that a key of the address names: a node (or the supernode that it is folded into), or a supernode. */
function unitOf(key) {
  if (!key) return null;
  const number = /^supernode (\d{1,4})$/.exec(key);
  if (number && !GRAPH.number.has(key)) return SHOWN.units.find((unit) => unit.group?.number === Number(number[1])) ?? null;
  const i = GRAPH.number.get(key);
  const u = i === undefined ? -1 : SHOWN.unitAt[i];
  return u < 0 ? null : SHOWN.units[u];
}

/** Whether a search finds a unit. */
function found(unit, words) {
  if (!words.length) return false;
  unit.about ??= [unit.label, ...unit.members.slice(0, 200).flatMap((i) => {
    const node = GRAPH.nodes[i];
    return [node.id, node.label, positionName(node.position), node.kind, `${node.layer}_${node.feature}`];
  })].join(" ").toLowerCase();
  return words.every((word) => unit.about.includes(word));
}

function searched() {
  return chosen.q.toLowerCase().split(/\s+/).filter(Boolean);
}
