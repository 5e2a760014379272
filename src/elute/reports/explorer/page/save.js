// What leaves the page: the clipboard, and files of figures (SVG) and of what stands in them (TSV).

const kept = new WeakMap(); // figure: what its TSV file holds

/** A figure or a table with the buttons that save it. `tsv` gives { heads, rows } when it is asked for. */
function savable({ name, title, tsv, drawn, kind = "" }) {
  const buttons = [drawn && "svg", tsv && "tsv"].filter(Boolean).map((form) =>
    el("button", { type: "button", "data-save": form, "aria-label": `Save as ${form.toUpperCase()}: ${title}` }, form.toUpperCase()));
  const body = drawn ? el("div", { class: "wide", tabindex: 0, role: "group", "aria-label": title }, drawn) : null;
  const made = el("figure", { class: `chart ${kind}`, "data-name": name }, body,
    el("figcaption", {}, el("span", {}, title), el("span", { class: "save" }, buttons)));
  if (tsv) kept.set(made, tsv);
  return made;
}

/** Let a table be saved: its buttons stand below it. */
function savableTable(made, { name, title, tsv }) {
  const frame = savable({ name, title, tsv, kind: "tabled" });
  frame.prepend(made);
  return frame;
}

function download(text, type, name) {
  const href = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

/** One cell of a file: on one line, and no formula, whatever a program of tables would take it for. */
function tsvCell(value) {
  if (!known(value)) return "";
  if (Array.isArray(value)) return value.map(tsvCell).join(", ");
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = String(value).replace(/[\t\r\n\v\f\u2028\u2029]+/g, " ");
  return /^[=+\-@]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
}

function tsvText({ heads, rows }) {
  return `${[heads, ...rows].map((row) => row.map(tsvCell).join("\t")).join("\n")}\n`;
}

/** A chart as the text of a file. Its marks carry the colours: dark on white, whatever the page wears. */
function svgText(made) {
  const copy = made.querySelector("svg").cloneNode(true);
  const { width, height } = copy.viewBox.baseVal;
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  for (const link of copy.querySelectorAll("a")) link.replaceWith(...link.childNodes);
  return new XMLSerializer().serializeToString(copy);
}

/** Save the figure that a button stands at. */
function saveFrom(button) {
  const made = button.closest("figure");
  const form = button.dataset.save;
  const name = `elute-${made.dataset.name.replace(/[^\w.-]+/g, "-")}.${form}`;
  if (form === "svg") download(svgText(made), "image/svg+xml", name);
  else download(tsvText(kept.get(made)()), "text/tab-separated-values", name);
}

/** Put text on the clipboard; whether it went. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { readonly: true, class: "aside", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const went = document.execCommand("copy");
    area.remove();
    return went;
  }
}
