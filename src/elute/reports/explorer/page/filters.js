// Filters: which features are shown, and the controls that choose that.

const SURE = 0.5; // confidence above which a name counts
const FILTERS = { type: "cell_type", kind: "kind" }; // key of the address: column of text

/** Which features pass the filters: 1 for each that does. */
function passing(site) {
  const pass = new Uint8Array(site.rows).fill(1);
  const keep = (test) => {
    for (let place = 0; place < site.rows; place += 1) if (pass[place] && !test(place)) pass[place] = 0;
  };
  if (toggled("alive") && site.column("alive")) keep((place) => site.value("alive", place) !== false);
  if (toggled("named") && site.column("name_confidence")) keep((place) => site.value("name_confidence", place) > SURE);
  if (toggled("sig") && site.found) keep((place) => site.found.counts[place] > 0);
  if (chosen.lib && site.found) {
    const mine = site.found.libraries.get(chosen.lib);
    keep((place) => mine?.[place] === 1);
  }
  for (const [key, name] of Object.entries(FILTERS)) {
    const column = site.column(name);
    if (!chosen[key] || !column) continue;
    const [code, codes] = [column.words.indexOf(chosen[key]), column.codes()];
    keep((place) => code >= 0 && codes[place] === code);
  }
  return pass;
}

/** The column by which the list is sorted, and which way; in a search without a choice, by how well it fits. */
function sorting(site) {
  const down = chosen.sort.startsWith("-");
  const key = down ? chosen.sort.slice(1) : chosen.sort;
  if (offered(site).some((column) => column.key === key)) return { key, down };
  if (chosen.q.trim()) return { key: "match", down: false };
  const usual = site.column("name_confidence") ? "name" : site.column("frequency") ? "frequency" : "feature";
  return { key: usual, down: usual !== "feature" };
}

/** The places of the features that are shown, in their order; what has no value comes last, whichever way. */
function ordered(site, pass, found) {
  const places = [];
  for (let place = 0; place < site.rows; place += 1) if (pass[place] && (!found || found.scores[place] < Infinity)) places.push(place);
  const { key, down } = sorting(site);
  const values = key === "match" ? found.scores : sortValues(site, key);
  const often = site.column("frequency")?.numbers() ?? null;
  const sign = down ? -1 : 1;
  const tie = (a, b) => (often ? (often[b] || 0) - (often[a] || 0) : 0) || a - b;
  return Uint32Array.from(places.sort((a, b) => {
    const [x, y] = [values[a], values[b]];
    if (x === y) return tie(a, b);
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || tie(a, b);
    return sign * (x - y);
  }));
}

/** How many features have each word of a column, the most first. */
function counted(column, limit = 400) {
  const counts = new Uint32Array(column.words.length);
  for (const code of column.codes()) if (code !== column.none && code < counts.length) counts[code] += 1;
  const codes = Array.from(counts.keys()).filter((code) => counts[code] > 0).sort((a, b) => counts[b] - counts[a]);
  return codes.slice(0, limit).map((code) => [column.words[code], counts[code]]);
}

function options(select, entries, now) {
  if (now && !entries.some(([value]) => value === now)) entries.push([now, `${shortened(now, 40)} (0)`]);
  select.replaceChildren(...entries.map(([value, text]) => el("option", { value, selected: value === now }, text)));
  select.value = now;
}

/** Put the words of this site into the controls. */
function drawFilters(site) {
  for (const [key, name] of Object.entries(FILTERS)) {
    const column = site.column(name);
    find(`filter-${key}`).parentElement.hidden = !column;
    if (!column) continue;
    const entries = counted(column).sort((a, b) => byLocale.compare(a[0], b[0]));
    options(find(`filter-${key}`), [["", "all"], ...entries.map(([word, count]) => [word, `${shortened(word, 40)} (${num(count)})`])], chosen[key]);
  }
  const libraries = [...(site.found?.libraries ?? [])].map(([name, mine]) => [name, mine.reduce((sum, one) => sum + one, 0)]);
  find("filter-lib").parentElement.hidden = !site.has("found");
  options(find("filter-lib"), [["", "any or none"], ...libraries.sort((a, b) => b[1] - a[1])
    .map(([name, count]) => [name, `${shortened(titleOf(site, name), 40)} (${num(count)})`])], chosen.lib);
  const there = { alive: site.column("alive"), sig: site.has("found"), named: site.column("name_confidence") };
  for (const name of TOGGLES) find(`filter-${name}`).parentElement.hidden = !there[name];
  followFilters(site);
}

/** Let the controls say what is chosen, wherever it was chosen. */
function followFilters(site) {
  for (const key of ["type", "kind", "lib"]) {
    const select = find(`filter-${key}`);
    if (select.value !== chosen[key]) {
      if (![...select.options].some((option) => option.value === chosen[key])) select.append(el("option", { value: chosen[key] }, `${shortened(chosen[key], 40)} (0)`));
      select.value = chosen[key];
    }
  }
  for (const name of TOGGLES) find(`filter-${name}`).checked = toggled(name);
  if (document.activeElement !== find("search") || find("search").value.slice(0, 200) !== chosen.q) find("search").value = chosen.q;
  find("clear").hidden = !(chosen.q || chosen.f || chosen.type || chosen.kind || chosen.lib);
  const { key, down } = sorting(site);
  options(find("sort"), [...(key === "match" ? [["match", "best match"]] : []), ...offered(site).map((column) => [column.key, column.title])], key);
  find("direction").textContent = down ? "↓ largest first" : "↑ smallest first";
  find("direction").disabled = key === "match";
}

/** The list of columns that can be shown, to be ticked. */
function drawColumnChoice(site) {
  const now = new Set(shownColumns(site).map((column) => column.key));
  find("columns-list").replaceChildren(...offered(site).filter(({ key }) => key !== "feature" && key !== "name").map((column) =>
    el("label", { class: "tick", title: column.what }, el("input", { type: "checkbox", value: column.key, checked: now.has(column.key) }), column.title)));
}

function chooseColumns(site) {
  const keys = [...document.querySelectorAll("#columns-list input:checked")].map((input) => input.value);
  const usual = USUAL.filter((key) => key !== "feature" && key !== "name" && offered(site).some((column) => column.key === key));
  const same = keys.length === usual.length && keys.every((key) => usual.includes(key));
  go({ cols: same ? "" : keys.join(",") || "name" }, { replace: true });
}

/** Let the controls choose. */
function listenToFilters(current) {
  const quiet = { replace: true };
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const key of ["type", "kind", "lib"]) find(`filter-${key}`).addEventListener("change", (event) => go({ [key]: event.target.value }, quiet));
  for (const name of TOGGLES) {
    find(`filter-${name}`).addEventListener("change", () => go({ f: TOGGLES.filter((one) => find(`filter-${one}`).checked).join(",") }, quiet));
  }
  find("clear").addEventListener("click", () => {
    go({ q: "", f: "", type: "", kind: "", lib: "" }, quiet);
    find("search").focus();
  });
  find("sort").addEventListener("change", (event) => go({ sort: `${largestFirst(current(), event.target.value) ? "-" : ""}${event.target.value}` }, quiet));
  find("direction").addEventListener("click", () => {
    const { key, down } = sorting(current());
    go({ sort: `${down ? "" : "-"}${key}` }, quiet);
  });
  find("columns").addEventListener("toggle", () => drawColumnChoice(current()));
  find("columns-list").addEventListener("change", () => chooseColumns(current()));
}
