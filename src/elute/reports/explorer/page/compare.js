// Two features side by side: of one site, or of two.

const SUGGESTED = 8;
const ALL_GENES = 50;

/** The other feature of a comparison: its site and its number, null where none is chosen. */
function otherChosen() {
  const [first, second] = chosen.with.includes(":") ? chosen.with.split(":") : ["", chosen.with];
  const key = INFO.sites.some((one) => one.key === first) ? first : chosen.site;
  return { key, number: second === "" ? null : Number(second) };
}

function withText(key, number) {
  return key === chosen.site ? String(number) : `${key}:${number}`;
}

/** A feature by its name, else by its first genes. */
function titleOfFeature(site, place) {
  return nameOf(site, place)?.text ?? firstGenes(site, place, 3).join(", ");
}

/** A field that finds features of a site by what the search finds. */
function pickerOf(site, { label: told, now, pick }) {
  const answers = el("ul", { class: "answers", "aria-label": `${told}: suggestions` });
  const input = el("input", { type: "search", autocomplete: "off", spellcheck: "false", placeholder: "gene, name, cell type or number" });
  if (now !== null) input.value = String(now);
  const suggest = () => {
    const found = searched(site, input.value);
    const all = found ? Array.from(found.scores.keys()).filter((i) => found.scores[i] < Infinity) : [];
    const places = all.sort((a, b) => found.scores[a] - found.scores[b] || a - b);
    answers.replaceChildren(...places.slice(0, SUGGESTED).map((place) => el("li", {}, el("button", { type: "button", click: () => pick(site.numbers[place]) },
      String(site.numbers[place]), " ", named(titleOfFeature(site, place), {}, 50), below(found.why(place))))));
    return places;
  };
  const enter = (event) => {
    event.preventDefault();
    const places = suggest();
    if (places.length) pick(site.numbers[places[0]]);
  };
  input.addEventListener("input", suggest);
  return el("form", { class: "picker", submit: enter }, el("label", {}, told, input), answers);
}

function siteChoice(now, choose) {
  if (INFO.sites.length < 2) return null;
  const all = INFO.sites.map((one) => el("option", { value: one.key, selected: one.key === now }, shortened(one.name, 60)));
  return el("label", {}, "Site", el("select", { change: (event) => choose(event.target.value) }, all));
}

/** The genes of a feature in their order: those of its details, else those of its row. */
async function genesOfSide({ site, place }) {
  const rows = genesOf(site, place, await openDetail(site, place));
  const listed = rows?.filter((row) => known(row.rank)).sort((a, b) => a.rank - b.rank).map((row) => row.gene);
  return (listed?.length ? listed : firstGenes(site, place, ALL_GENES)).filter(Boolean);
}

/** What two lists share and what is alone in each. */
function sharedList(one, two, write) {
  [one, two] = [one, two].map((list) => [...new Set(list)]);
  const [first, second] = [new Set(one), new Set(two)];
  const names = (some) => (some.length ? el("p", { class: "genes" }, joined(some.map(write), " ")) : el("p", { class: "dim" }, "none"));
  const part = (title, some) => el("div", {}, el("h4", {}, `${title} (${num(some.length)})`), names(some));
  return el("div", { class: "three" }, part("Only the first", one.filter((name) => !second.has(name))), part("Both", one.filter((name) => second.has(name))),
    part("Only the second", two.filter((name) => !first.has(name))));
}

/** How many genes two lists of that length share by chance, of all genes that any list of the site has. */
function chanceOfSharing(one, two, site) {
  const all = site.column("top_genes")?.of.words.length;
  return all && one.length <= all ? (one.length * two.length) / all : null;
}

async function termsOfSide({ site, place }) {
  const rows = termsOf(await openDetail(site, place));
  return rows?.filter((row) => levelOf(site, row) === 2) ?? null;
}

function termsShared(one, two, site) {
  if (!one || !two) return absent();
  const told = (row) => `${row.source}\u0000${row.term}`;
  const labels = new Map([...one, ...two].map((row) => [told(row), row]));
  const write = (key) => el("span", { class: "chip" }, named(labels.get(key).label, { title: `${titleOf(site, labels.get(key).source)}: ${labels.get(key).term}` }, 60));
  return sharedList(one.map(told), two.map(told), write);
}

/** The cells in which a feature fires, of those on this page; null where the page does not hold them. */
async function firesIn({ site, place }) {
  const group = Math.floor(place / site.info.group);
  if (!site.has(`codes-${group}`) || !site.has("cells")) return null;
  const [codes, cells] = await Promise.all([site.block(`codes-${group}`), site.block("cells")]);
  const i = place - group * site.info.group;
  return { places: codes.column("cells").places(i), cells, floor: codes.column("floor")?.at(i) ?? 0 };
}

/** Whether two sites show the same cells in the same order, by some of their names. */
function sameCells(one, two) {
  if (one === two) return true;
  const [mine, theirs] = [one.column("cell"), two.column("cell")];
  if (one.rows !== two.rows || !mine || !theirs) return false;
  return Array.from({ length: 16 }, (_, i) => Math.floor((i * (one.rows - 1)) / 15)).every((place) => mine.at(place) === theirs.at(place));
}

/** In how many cells both fire, beside how many that would be if they knew nothing of one another. */
function cellsShared(one, two) {
  if (!one || !two) return absent();
  if (!sameCells(one.cells, two.cells)) return note("The two sites show other cells.");
  const of = one.cells.rows;
  const first = new Set(one.places);
  const together = two.places.reduce((sum, place) => sum + first.has(place), 0);
  const either = one.places.length + two.places.length - together;
  const floor = Math.max(one.floor, two.floor) > 0 ? note("Of a feature that fires nearly everywhere the page holds the strongest cells alone, and these are compared.") : null;
  return [factsOf([["cells with the first", num(one.places.length)], ["cells with the second", num(two.places.length)],
    ["with both", [num(together), below(`${num((one.places.length * two.places.length) / of, 2)} by chance`)]],
    ["share of those with either", [percent(either ? together / either : 0), below(`of ${num(of)} cells on this page`)]]]), floor];
}

/** Features whose first genes are most alike, of the other site: something to begin with. */
function mostAlike(site, place, other) {
  const [mine, theirs] = [site.column("top_genes"), other.column("top_genes")];
  if (!mine || !theirs) return [];
  const genes = new Set(mine.at(place));
  const wanted = new Uint8Array(theirs.of.words.length);
  theirs.of.words.forEach((word, code) => { wanted[code] = genes.has(word) ? 1 : 0; });
  const codes = theirs.of.codes();
  const scores = Uint16Array.from({ length: other.rows }, (_, i) => {
    let sum = 0;
    for (let k = theirs.offsets[i]; k < theirs.offsets[i + 1]; k += 1) sum += wanted[codes[k]];
    return sum;
  });
  const found = Array.from(scores.keys()).filter((i) => scores[i] > 0 && !(other === site && i === place)).sort((a, b) => scores[b] - scores[a] || a - b);
  return found.slice(0, SUGGESTED).map((i) => [other.numbers[i], scores[i], genes.size]);
}

async function sideOf({ site, place }) {
  const detail = await openDetail(site, place);
  const value = (name) => site.value(name, place);
  const name = nameOf(site, place);
  const type = [held(value("cell_type"), (text) => named(text, {}, 40), "–"), below("AUROC ", both(value("auroc_shown"), value("auroc"), fixed))];
  return [el("h3", {}, featureLink(site, site.numbers[place]), " ", named(titleOfFeature(site, place), {}, 80)), note("site ", named(site.info.name)),
    factsOf([["confidence", held(name?.confidence, fixed, name ? NOT_RUN : "no name")], ["kind", held(value("kind"), (text) => named(text))],
      ["fires in rows", held(value("frequency"), percent)], ["cell type", type], ["highest", held(value("max"))], ["stability", held(value("stability"), fixed)]]),
    histogramChart(site, place, detail)];
}

async function comparison(one, two) {
  const [genes, otherGenes, terms, otherTerms, cells, otherCells, first, second] = await Promise.all(
    [genesOfSide(one), genesOfSide(two), termsOfSide(one), termsOfSide(two), firesIn(one), firesIn(two), sideOf(one), sideOf(two)]);
  const gene = (name) => named(name, { class: "name gene" }, 30);
  const expected = chanceOfSharing(genes, otherGenes, one.site);
  const byChance = known(expected) ? `; lists of that length share ${num(expected, 2)} by chance` : "";
  const detail = await openDetail(one.site, one.place);
  const near = one.site === two.site ? nearOf(one.site, one.place, { detail, name: "near", score: "cosine" }) : null;
  const cosine = near?.find(({ feature }) => feature === two.site.numbers[two.place])?.score;
  return [el("div", { class: "sides" }, el("div", {}, first), el("div", {}, second)),
    known(cosine) ? note(`Cosine of their directions: ${fixed(cosine)}.`) : null,
    ...section("Genes", `First ${num(genes.length)} and ${num(otherGenes.length)} genes by specificity${byChance}.`, sharedList(genes, otherGenes, gene)),
    ...section("Significant terms", null, termsShared(terms, otherTerms, one.site)),
    ...section("Cells in which they fire", null, cellsShared(cells, otherCells))];
}

/** Sites beside one another: what each was given, and what it found beside its control. */
function sitesTable() {
  if (INFO.sites.length < 2) return null;
  const heads = [{ text: "Site" }, { text: "Features", n: true }, { text: "Fire", n: true },
    { text: "Explained", n: true, title: "of the variance (as many principal directions)" }, { text: "Follow a type", n: true, title: "(on random weights)" },
    { text: "Found again", n: true, title: "by another seed (by chance)" }];
  const rows = INFO.sites.map((one) => {
    const { features, "random weights": random, "another seed": seed } = one.controls?.follow ?? {};
    return [named(one.name), num(one.features), held(one.alive), both(one.explained?.explained, one.explained?.explained_pca, percent),
      both(features?.follow, random?.follow, num), both(seed?.["found again"], seed?.["found again by chance"], percent)];
  });
  return [el("h3", {}, "Sites beside one another"), table("Sites beside one another", heads, rows, "cards"), note("In brackets what each number is held against.")];
}

/** The fields that choose the two features. */
function choiceOf(site, other, { key, number }) {
  const first = pickerOf(site, { label: "First feature", now: openNumber(), pick: (value) => go({ feature: String(value) }) });
  const second = pickerOf(other, { label: "Second feature", now: number, pick: (value) => go({ with: withText(key, value) }) });
  return el("div", { class: "sides" }, el("div", {}, siteChoice(site.key, (value) => go({ site: value, view: "compare" })), first),
    el("div", {}, siteChoice(other.key, (value) => go({ with: value === chosen.site ? "" : `${value}:` })), second));
}

/** Features to begin with: those most alike. */
function alikeList(site, place, other) {
  const alike = mostAlike(site, place, other);
  const one = ([number, shared, of]) => el("li", {}, el("a", { href: addressOf({ with: withText(other.key, number) }) }, String(number), " ",
    named(titleOfFeature(other, other.place(number)), {}, 40)), dim(` ${shared} of ${of} genes`));
  return [el("h3", {}, "Most alike by their first genes"), alike.length ? el("ul", { class: "links" }, alike.map(one)) : el("p", { class: "dim" }, "none")];
}

let compared = 0;

/** Draw what is compared, and the fields that choose it. */
async function drawCompare(site) {
  const mine = (compared += 1);
  const with_ = otherChosen();
  const other = await openSite(with_.key);
  const one = { site, place: site.place(openNumber() ?? -1) };
  const two = { site: other, place: with_.number === null ? undefined : other.place(with_.number) };
  const parts = [el("h2", { tabindex: -1 }, "Compare two features"), choiceOf(site, other, with_)];
  if (one.place !== undefined && two.place !== undefined) parts.push(await comparison(one, two));
  else if (one.place !== undefined) parts.push(alikeList(site, one.place, other));
  else parts.push(note("Choose two features: type a gene, a cell type, a name or a number."));
  parts.push(sitesTable());
  if (mine === compared) find("compare").replaceChildren(...parts.flat(Infinity).filter(Boolean));
}
