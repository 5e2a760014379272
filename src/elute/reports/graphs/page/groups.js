// Pins and supernodes: the file's, until the reader makes others; then the address and the saved file hold them.

const picked = new Set(); // nodes that are being put together

/** What a list of the address says; null where it says nothing that can be read. */
function listed(text) {
  if (text === "") return null;
  try {
    const found = JSON.parse(text);
    return Array.isArray(found) ? found : null;
  } catch {
    return null;
  }
}

function numbersOf(ids) {
  return [...new Set(ids.map((id) => GRAPH.number.get(id)).filter((i) => i !== undefined))];
}

/** The numbers of pinned nodes. */
function pins() {
  return numbersOf(listed(chosen.pins) ?? FILE.qParams.pinnedIds);
}

/** The supernodes: a label and the numbers of their nodes, each node in one of them. */
function groups() {
  const taken = new Set();
  const found = [];
  for (const one of listed(chosen.groups) ?? FILE.qParams.supernodes) {
    if (!Array.isArray(one) || typeof one[0] !== "string") continue;
    const members = numbersOf(one.slice(1)).filter((i) => !taken.has(i));
    members.forEach((i) => taken.add(i));
    if (members.length) found.push({ label: one[0], members });
  }
  return found;
}

function opened() {
  return new Set(chosen.open === "" ? [] : chosen.open.split(",").map(Number));
}

const idsOf = (numbers) => numbers.map((i) => GRAPH.nodes[i].id);
const groupText = (made) => JSON.stringify(made.map(({ label, members }) => [label, ...idsOf(members)]));
const openText = (made) => [...made].sort((a, b) => a - b).join(",");

function togglePin(i) {
  const now = pins();
  const next = now.includes(i) ? now.filter((one) => one !== i) : [...now, i];
  go({ pins: JSON.stringify(idsOf(next)) });
}

/** Fold a supernode together, or lay out its nodes. */
function toggleGroup(number) {
  const now = opened();
  if (!now.delete(number)) now.add(number);
  go({ open: openText(now) });
}

function saveGroups(made, open, changes = {}) {
  go({ groups: groupText(made), open: openText(open), ...changes });
}

/** Put nodes together under a name; they leave the supernodes in which they were. */
function makeGroup(label, members) {
  const now = opened();
  const open = new Set();
  const rest = [];
  groups().forEach((one, number) => {
    const left = one.members.filter((i) => !members.includes(i));
    if (!left.length) return;
    if (now.has(number)) open.add(rest.length);
    rest.push({ label: one.label, members: left });
  });
  picked.clear();
  saveGroups([...rest, { label, members }], open, { node: `supernode ${rest.length}` });
}

function dissolve(number) {
  const open = new Set([...opened()].filter((one) => one !== number).map((one) => (one > number ? one - 1 : one)));
  saveGroups(groups().filter((_, i) => i !== number), open, { node: "" });
}

function rename(number, label) {
  saveGroups(groups().map((one, i) => (i === number ? { ...one, label } : one)), opened());
}

function leaveGroup(number, member) {
  const rest = groups().map((one, i) => (i === number ? { ...one, members: one.members.filter((j) => j !== member) } : one));
  if (rest[number].members.length) saveGroups(rest, opened());
  else dissolve(number);
}

function pick(i) {
  if (!picked.delete(i)) picked.add(i);
  drawMaker();
  paint();
}

/** The form below the graph: what was picked becomes a supernode. */
function drawMaker() {
  const form = find("maker");
  form.hidden = picked.size === 0;
  if (form.hidden) {
    form.replaceChildren();
    return;
  }
  const typed = form.querySelector("input")?.value ?? "";
  const strongest = [...picked].sort((a, b) => GRAPH.nodes[b].flow - GRAPH.nodes[a].flow)[0];
  form.replaceChildren(
    el("strong", {}, `${picked.size} picked`),
    el("label", {}, "Name ", el("input", { id: "group-name", maxlength: 200, placeholder: shortened(GRAPH.nodes[strongest].label, 60) })),
    el("button", { disabled: picked.size < 2 }, "Make a supernode"),
    el("button", { type: "button", "data-pin-picked": true }, "Pin"),
    el("button", { type: "button", "data-drop-picked": true }, "Clear"));
  form.querySelector("input").value = typed;
}

function listenToMaker() {
  find("maker").addEventListener("submit", (event) => {
    event.preventDefault();
    if (picked.size < 2) return;
    const field = event.target.querySelector("input");
    makeGroup(field.value.trim() || field.placeholder, [...picked]);
    drawMaker();
  });
  find("maker").addEventListener("click", (event) => {
    if (event.target.closest("[data-pin-picked]")) go({ pins: JSON.stringify(idsOf([...new Set([...pins(), ...picked])])) });
    else if (!event.target.closest("[data-drop-picked]")) return;
    picked.clear();
    drawMaker();
    paint();
  });
}

/** The graph file with the pins and supernodes of this page. */
function saveGraph() {
  const now = unitOf(chosen.node);
  const clicked = now && !now.group ? GRAPH.nodes[now.members[0]].id : "";
  const made = groups().map(({ label, members }) => [label, ...idsOf(members)]);
  const told = { ...FILE, qParams: { ...FILE.qParams, pinnedIds: idsOf(pins()), supernodes: made, clickedId: clicked } };
  download(`${JSON.stringify(told)}\n`, "application/json", `${FILE.metadata.slug.replace(/[^\w.-]+/g, "-") || "graph"}.json`);
}
