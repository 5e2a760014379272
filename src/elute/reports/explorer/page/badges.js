// What a feature is called, and its controls as badges with words: each number beside what it is held against.

const ALIKE = 0.7; // cosine from which on a feature counts as found again; as in the controls

function section(title, told, ...content) {
  return [el("h3", {}, title), note(told), ...content];
}

function absent() {
  return el("p", { class: "dim" }, NOT_RUN);
}

/** A plain badge: `tone` is "yes", "no" or "" where nothing was tested. */
function badge(tone, told, control) {
  return el("li", { class: `badge ${tone}` }, el("span", {}, told), control ? below(control) : null);
}

function seedBadge(site, place) {
  const told = site.info.controls?.follow?.["another seed"];
  const cosine = site.value("stability", place);
  const control = told && known(told["found again"]) ? `of all features ${percent(told["found again"])} are, by chance ${percent(told["found again by chance"] ?? 0)}` : null;
  if (!known(cosine)) return badge("", `Another seed: ${NOT_RUN}`, control);
  const found = cosine >= ALIKE;
  return badge(found ? "yes" : "no", `${found ? "Found" : "Not found"} again by another seed (cosine ${fixed(cosine)})`, control);
}

function cellsBadge(site, place) {
  const [shown, on, type] = ["auroc_shown", "auroc", "cell_type"].map((key) => site.value(key, place));
  const at = site.info.controls?.at;
  if (type === null) return badge("", "Follows no cell type that was tested", null);
  if (!known(shown)) return badge("", `Other cells: ${NOT_RUN}`, known(on) ? `AUROC ${fixed(on)} for ${shortened(type, 40)} on the cells that chose it` : null);
  const told = `AUROC ${fixed(shown)} for ${shortened(type, 40)} there, ${fixed(on)} on the cells that chose it`;
  if (!known(at)) return badge("", "On other cells", told);
  if (shown >= at && on >= at) return badge("yes", "Follows its cell type again on other cells", told);
  return badge("no", `Does not follow a cell type (AUROC ${num(at)} on both)`, told);
}

function randomBadge(site) {
  const follow = site.info.controls?.follow ?? {};
  const told = follow["random weights"];
  if (!told || !known(told.follow)) return badge("", `Random weights: ${NOT_RUN}`, told?.["not run"] ?? null);
  const here = known(follow.features?.follow) ? `here ${num(follow.features.follow)} of ${num(follow.features.columns)}` : null;
  const labels = known(follow["permuted labels"]?.follow) ? `with labels permuted ${num(follow["permuted labels"].follow)}` : null;
  return badge("", `A model of random weights: ${num(told.follow)} of ${num(told.columns)} features follow a cell type`, [here, labels].filter(Boolean).join("; "));
}

function donorBadge(site, place) {
  const [q, donors] = [site.value("q_donors", place), site.value("cell_type_donors", place)];
  if (!site.column("q_donors") || !known(q)) return badge("", `Across donors: ${NOT_RUN}`, site.info.cells?.donors === 0 ? "no donors were given" : null);
  return badge(q <= (site.info.fdr ?? 0.05) ? "yes" : "no", `Across ${num(donors)} donors: q ${chance(q)}`, "each donor is one observation");
}

function termBadge(site, place) {
  if (!site.has("found")) return badge("", `Databases: ${NOT_RUN}`, null);
  if (!site.found) return null;
  const count = site.found.counts[place];
  const libraries = [...site.found.libraries].filter(([, mine]) => mine[place]).map(([name]) => titleOf(site, name));
  if (!count) return badge("no", "No significant term", "against genes alike");
  return badge("yes", `${termCount(count)} significant ${count === 1 ? "term" : "terms"}`, `in ${shortened(libraries.join(", "), 160)}`);
}

/** What it is called, why, and what a narrator made of it. */
function called(site, place, detail) {
  const name = nameOf(site, place);
  const genes = firstGenes(site, place, 4).join(", ");
  if (!site.column("name")) return [el("p", { class: "called" }, genes ? named(genes) : dim("silent")), note(`Name: ${NOT_RUN}.`)];
  const told = textOf(site, place, { detail, name: "explanation" });
  const score = site.value("explanation_score", place);
  const source = site.value("name_source", place);
  const reason_ = textOf(site, place, { detail, name: "name_reason" });
  return [el("p", { class: "called" }, name === null ? dim("no name: ", genes ? named(genes) : "no gene") : named(name.text, {}, 300)),
    known(name?.confidence) ? el("p", { class: "confidence" }, "confidence ", el("strong", {}, fixed(name.confidence)), bar(name.confidence, 1),
      source ? dim("by ", named(titleOf(site, source), {}, 60)) : null) : null,
    reason_ === null ? null : note(named(reason_, {}, 400)),
    told ? note("In words: ", named(told, {}, 600), known(score) ? [` (tells ${percent(score)} of held-out cells rightly; another feature’s words `,
      held(site.value("explanation_shuffled", place), percent), ")"] : null) : null];
}

/** All badges of a feature. */
function badgesOf(site, place) {
  const badges = [cellsBadge(site, place), donorBadge(site, place), seedBadge(site, place), randomBadge(site), termBadge(site, place)];
  return el("ul", { class: "badges", "aria-label": "Controls" }, badges);
}
