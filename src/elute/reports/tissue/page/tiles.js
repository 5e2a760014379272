// How strongly maps lie over tiles, tiles in grey, and one tile large.

const root = document.documentElement;
const shots = [...document.querySelectorAll(".shot")];
let open = -1; // the tile that is large

function follow() {
  const share = find("opacity").value;
  root.style.setProperty("--over", String(share / 100));
  root.classList.toggle("grey-tiles", find("grey").checked);
  find("opacity-told").textContent = `${share} %`;
}

/** The large tile: the figure's own pictures once more, and all that is told of it. */
function fill(dialog, at) {
  open = (at + shots.length) % shots.length;
  const [frame, caption] = ["frame", "more"].map((name) => shots[open].querySelector(`.${name}`).cloneNode(true));
  for (const name of ["tabindex", "role", "aria-label"]) frame.removeAttribute(name);
  dialog.querySelector(".large").classList.toggle("pixels", shots[open].classList.contains("pixels"));
  const strip = shots[open].closest(".strip");
  const place = [...strip.children].indexOf(shots[open]) + 1;
  dialog.querySelector(".large").replaceChildren(frame, el("div", { class: "beside" },
    el("p", { class: "dim" }, `${strip.getAttribute("aria-label")}: ${place} of ${strip.children.length}`), caption));
}

function makeDialog() {
  const step = (by) => () => fill(dialog, open + by);
  const dialog = el("dialog", { id: "tile", "aria-label": "Tile" },
    el("div", { class: "large", "aria-live": "polite" }),
    el("form", { method: "dialog", class: "dialog-keys" },
      el("button", { type: "button", click: step(-1) }, "← before"),
      el("button", { type: "button", click: step(1) }, "next →"),
      el("button", {}, "Close")));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") fill(dialog, open - 1);
    if (event.key === "ArrowRight") fill(dialog, open + 1);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => shots[open]?.querySelector(".frame").focus());
  document.body.append(dialog);
  return dialog;
}

if (find("opacity")) {
  find("opacity").addEventListener("input", follow);
  find("grey").addEventListener("change", follow);
  follow();
}
if (shots.length) {
  const dialog = makeDialog();
  shots.forEach((shot, at) => {
    const frame = shot.querySelector(".frame");
    const show = () => { fill(dialog, at); dialog.showModal(); };
    frame.setAttribute("tabindex", "0");
    frame.setAttribute("role", "button");
    frame.setAttribute("aria-label", `${frame.querySelector(".tile")?.alt ?? "Tile"}: show large`);
    frame.addEventListener("click", show);
    frame.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      show();
    });
  });
}
