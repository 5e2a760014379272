// The graph as it lies in the page: nodes, links both ways, names.

const KINDS = { "cross layer transcoder": "feature", "mlp reconstruction error": "error", embedding: "token", logit: "output" };
const OUTPUT = /^Output "([^]*)" \(p=/;
let GRAPH = null; // nodes, links and what else the page knows
let FILE = null; // the graph file itself

async function inflated(id) {
  const bytes = Uint8Array.from(atob(find(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** What is known of a node besides the file: by its id, else of its feature at all positions. */
function detailsOf(known, node, feature, kind) {
  const told = own(known, node.node_id);
  return told ?? (kind === "feature" ? own(known, `${node.layer}_${feature}`) : undefined) ?? null;
}

function labelOf(node, kind, feature, details, prompt) {
  if (kind === "output") return OUTPUT.exec(node.clerp ?? "")?.[1] ?? (node.clerp || node.node_id);
  if (node.clerp) return node.clerp;
  if (details?.label) return details.label;
  if (kind === "token") return prompt[node.ctx_idx] ?? `position ${node.ctx_idx}`;
  return kind === "error" ? `Error of layer ${node.layer}` : `Feature ${node.layer}/${feature}`;
}

/** For each node the numbers of its links, the strongest first: those of node i are from start[i] up to start[i + 1]. */
function byEnd(ends, weight, n) {
  const start = new Uint32Array(n + 1);
  for (const end of ends) start[end + 1] += 1;
  for (let i = 0; i < n; i += 1) start[i + 1] += start[i];
  const next = start.slice();
  const links = new Uint32Array(ends.length);
  for (let i = 0; i < ends.length; i += 1) links[next[ends[i]]++] = i;
  for (let i = 0; i < n; i += 1) links.subarray(start[i], start[i + 1]).sort((a, b) => Math.abs(weight[b]) - Math.abs(weight[a]) || a - b);
  return { start, links, of: (i) => links.subarray(start[i], start[i + 1]) };
}

function readNodes(told, prompt) {
  const layers = told.content.nodes.filter((node) => node.feature_type !== "logit" && node.layer !== "E").map((node) => Number(node.layer));
  const top = layers.reduce((most, layer) => Math.max(most, layer), -1) + 1;
  const nodes = told.content.nodes.map((node, i) => {
    const kind = KINDS[node.feature_type];
    const feature = told.features[i];
    const details = detailsOf(told.beside.features, node, feature, kind);
    return {
      i, kind, feature, details, id: node.node_id, position: node.ctx_idx,
      layer: kind === "token" ? -1 : kind === "output" ? top : Number(node.layer),
      label: labelOf(node, kind, feature, details, prompt), activation: node.activation ?? null,
      flow: told.flow[i], cumulative: told.cumulative[i], chance: kind === "output" ? node.token_prob ?? 0 : 0,
    };
  });
  const outputs = nodes.filter((node) => node.kind === "output");
  const alone = outputs.length === 1 && outputs[0].chance === 1; // a value that is predicted: it counts for 1, and is no choice
  for (const node of outputs) node.probability = alone ? null : node.chance;
  return { nodes, top };
}

/** How much is reached before a node, from the most influential on: a node is shown where that is less than asked for. */
function readBefore(nodes) {
  const order = nodes.filter((node) => known(node.cumulative)).sort((a, b) => a.cumulative - b.cumulative);
  let reached = 0;
  let last = 0;
  for (const node of order) {
    if (node.cumulative > last) reached = last;
    last = node.cumulative;
    node.before = reached;
  }
}

async function readGraph() {
  const told = await inflated("data");
  find("data").remove();
  FILE = told.content;
  const prompt = FILE.metadata.prompt_tokens;
  const { nodes, top } = readNodes(told, prompt);
  readBefore(nodes);
  const number = new Map(nodes.map((node) => [node.id, node.i]));
  const n = FILE.links.length;
  const links = { source: new Uint32Array(n), target: new Uint32Array(n), weight: new Float64Array(n), share: new Float64Array(n), score: new Float64Array(n), n };
  const into = new Float64Array(nodes.length); // what comes into each node, signs apart
  FILE.links.forEach((link, i) => {
    links.source[i] = number.get(link.source);
    links.target[i] = number.get(link.target);
    links.weight[i] = link.weight;
    into[links.target[i]] += Math.abs(link.weight);
  });
  for (let i = 0; i < n; i += 1) {
    const target = links.target[i];
    links.share[i] = into[target] > 0 ? Math.abs(links.weight[i]) / into[target] : 0;
    links.score[i] = links.share[i] * (nodes[target].flow + nodes[target].chance);
  }
  const positions = nodes.reduce((most, node) => Math.max(most, node.position + 1), prompt.length);
  const whole = nodes.reduce((sum, node) => sum + (node.kind === "output" ? 0 : node.flow), 0);
  GRAPH = {
    ...told, nodes, links, into, top, number, prompt, positions, whole,
    incoming: byEnd(links.target, links.weight, nodes.length), outgoing: byEnd(links.source, links.weight, nodes.length),
    hasErrors: nodes.some((node) => node.kind === "error"),
  };
}

/** What stands at a position: the gene or the token. */
function positionName(position) {
  const { beside, prompt } = GRAPH;
  return (beside.kind === "genes" ? beside.genes[position] : undefined) ?? prompt[position] ?? String(position);
}

function layerName(layer) {
  return layer < 0 ? "input" : layer >= GRAPH.top ? "output" : `layer ${layer}`;
}

/** Where a node stands, in words. */
function placeOf(node) {
  return `${layerName(node.layer)}, ${shortened(positionName(node.position), 30)}`;
}
