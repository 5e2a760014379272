// How far the graph can be believed: its scores, the check of its links, and whether influence tells what ablations do.

/** Of both measures of an ablation the one that is known: the divergence of the choice, else the change of the outputs. */
function agreementOf({ agreement }) {
  const kind = known(agreement?.kl) ? "kl" : "change";
  return agreement ? { rho: agreement[kind], control: agreement[`control_${kind}`], p: agreement[`${kind}_p`], features: agreement.features } : {};
}

/** What stands at the top of the page: numbers, each beside what it is held against. */
function drawHeadline() {
  const { checks, scores } = GRAPH;
  const mine = checks?.scores ?? scores;
  const other = checks?.others.find((one) => one.scores);
  const against = (key) => (other && known(other.scores[key]) ? dim(` (${other.name} ${fixed(other.scores[key])})`) : null);
  const agreed = checks ? agreementOf(checks) : {};
  const edges = checks?.edges;
  const parts = [
    ["replacement", [held(mine.replacement, fixed), checks ? against("replacement") : dim(" (in this file)")], "Of what begins at inputs and errors, the share that begins at inputs"],
    ["completeness", [held(mine.completeness, fixed), checks ? against("completeness") : dim(" (in this file)")], "The share of what comes into nodes that is not from errors"],
    edges && ["links checked", [num(edges.edges), dim(`, off by ${num(edges.largest, 2)} at most`)], "Each beside what an ablation of its source does to its target in the replacement model"],
    known(agreed.rho) && ["Spearman with ablations", [fixed(agreed.rho), dim(known(agreed.control) ? ` (control ${fixed(agreed.control)})` : " (no control)")], "Influence beside what ablating features does in the model itself; the control ablates another feature of the same layer"],
  ];
  find("headline").replaceChildren(...parts.filter(Boolean).map(([term, value, title]) => el("div", { title }, el("dt", {}, term), el("dd", {}, value))));
}

const PARTS = [
  ["Replacement, whole graph", (one) => held(one.scores?.replacement, fixed)],
  ["Completeness, whole graph", (one) => held(one.scores?.completeness, fixed)],
  ["Replacement, what was kept", (one) => held(one.kept?.replacement, fixed), "What was pruned away counts as an error"],
  ["Completeness, what was kept", (one) => held(one.kept?.completeness, fixed), "What was pruned away counts as an error"],
  ["Nodes", (one) => held(one.nodes, num, "–")],
  ["Links", (one) => held(one.links, num, "–")],
  ["Mean length of paths", (one) => held(one.path_length, num, "–")],
  ["Links checked by ablation", (one) => [held(one.edges?.edges), known(one.edges?.sources) ? below(`of ${num(one.edges.sources)} sources`) : null]],
  ["Largest relative difference", (one) => (one.edges ? [held(one.edges.largest, (value) => num(value, 2)), known(one.edges.tolerance) ? el("span", { class: `below ${one.edges.largest <= one.edges.tolerance ? "fine" : "flag"}` }, `${one.edges.largest <= one.edges.tolerance ? "within" : "beyond"} ${num(one.edges.tolerance)}`) : null] : dim(NOT_RUN))],
  ["Influence and what ablation does to the choice", (one) => correlation(one.agreement, "kl"), "Spearman, in the model itself; KL divergence of the outputs"],
  ["Influence and what ablation does to the outputs", (one) => correlation(one.agreement, "change"), "Spearman, in the model itself; mean change of the explained outputs"],
  ["The same within layer and position", (one) => correlation(one.agreement, "within", "control_within"), "Where a feature fires decides much by itself: here features of one layer and position are compared"],
  ["Choice, on further inputs", (one) => correlation(one.further, "kl"), "The mean over other inputs of the same model"],
  ["Outputs, on further inputs", (one) => correlation(one.further, "change"), "The mean over other inputs of the same model"],
  ["Within layer and position, on further inputs", (one) => correlation(one.further, "within", "control_within"), "The mean over other inputs of the same model"],
  ["Further inputs", (one) => held(one.further?.inputs)],
  ["Features ablated", (one) => held(one.agreement?.features)],
];

/** A rank correlation, and below it that of the control. */
function correlation(agreement, key, control = `control_${key}`) {
  if (!known(agreement?.[key])) return dim(NOT_RUN);
  const p = agreement[`${key}_p`];
  return [fixed(agreement[key]), known(p) ? dim(` p ${chance(p)}`) : null, below(known(agreement[control]) ? `control ${fixed(agreement[control])}` : "no control")];
}

function drawScores() {
  const { checks, scores } = GRAPH;
  const box = find("scores");
  const info = FILE.metadata.info ?? {};
  const told = (name) => (own(info, name) ?? null);
  const own_ = { name: "in this file", scores, nodes: GRAPH.nodes.length, links: GRAPH.links.n };
  const mine = checks && { ...checks, nodes: checks.nodes ?? own_.nodes, links: checks.links ?? own_.links };
  const columns = mine ? [mine, ...checks.others] : [own_];
  const heads = [{ text: "" }, ...columns.map((one) => ({ text: shortened(one.name, 60), n: true }))];
  const rows = PARTS.filter(([, write]) => columns.some((one) => !one.published && !isUnknown(write(one))))
    .map(([name, write, title]) => [el("span", { title }, name), ...columns.map((one) => (one.published && isUnknown(write(one)) ? dim("–") : write(one)))]);
  const left = told("left_out");
  const bent = Array.isArray(told("not_linear")) ? told("not_linear") : [];
  box.replaceChildren(...[
    el("h2", {}, "How far it can be believed"),
    el("p", { class: "note" }, "Replacement and completeness say how much goes through features rather than errors. A link is checked by taking its source away in the replacement model; influence, by ablating features in the model itself, beside a control: another feature of the same layer, scaled to write as much."),
    table("Scores", heads, rows),
    checks ? el("p", { class: "note" }, "Published values are those of E. Ameisen et al., Circuit tracing, 2025, for a language model of 18 layers: other models and inputs, so a measure of what is reached elsewhere and no control.") : el("p", { class: "note" }, "Nothing but the file is known here: no link was checked, and no ablation made. Scores of what is in a pruned file leave out what was pruned away."),
    el("h3", {}, "The graph"),
    factsOf([
      ["slug", named(FILE.metadata.slug)], ["dictionaries", named(FILE.metadata.scan, {}, 120)],
      ["kind", { clt: "cross-layer transcoder", transcoder: "per-layer transcoders" }[told("dictionaries")] ?? held(null)],
      ["pruned to", known(FILE.metadata.node_threshold) ? percent(FILE.metadata.node_threshold) + " of influence" : dim("not said")],
      known(left) && ["features that fired and are left out", num(left)],
      bent.length > 0 && ["not linear, so linearised", joined(bent.slice(0, 20).map((one) => named(one)))],
      ["prompt", named(FILE.metadata.prompt, {}, 300)], GRAPH.version && ["elute", shortened(GRAPH.version, 40)],
    ]),
  ]);
}

/** Whether a cell of the table says that nothing is known. */
function isUnknown(content) {
  const first = Array.isArray(content) ? content[0] : content;
  return first instanceof Node && [NOT_RUN, "–"].includes(first.textContent);
}
