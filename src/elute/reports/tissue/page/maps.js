// The maps of all sections: legends, panels beside each other, and the numbers of the sample that is pointed at.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const themeNow = () => mapThemeOf(getComputedStyle(document.documentElement).backgroundColor);

/** The colours from low to high, with their numbers. */
function legendOf(scale, theme) {
  const colours = coloursOf(scale, theme);
  const stops = Array.from({ length: 17 }, (_, i) => colours[Math.round((i / 16) * (colours.length - 1))]);
  const middle = scale.kind === "ramp" ? (scale.low + scale.high) / 2 : 0;
  return el("div", { class: "ramp-box" },
    el("span", { class: "ramp-name" }, scale.unit),
    el("span", { class: "ramp", "--ramp": `linear-gradient(to right, ${stops.join(", ")})` }),
    el("span", { class: "ramp-ends" }, ...[`≤ ${num(scale.low)}`, num(middle), `≥ ${num(scale.high)}`].map((text) => el("span", {}, text))));
}

class SectionMaps {
  constructor(maps, section) {
    this.maps = maps;
    this.section = section;
    this.panels = maps.panels.map((panel) => new MapPanel(maps, section, panel));
    this.readout = el("p", { class: "readout", role: "status" });
    this.bar = el("span", { class: "bar" });
    this.field = el("div", { class: "panels", tabindex: 0, role: "group", "aria-label": `Section ${section.name}: arrow keys go from sample to sample` },
      this.panels.map((panel) => panel.node));
    const group = section.group === null ? [] : [" of ", el("bdi", {}, section.group)];
    this.node = el("figure", { class: "section-maps" },
      el("figcaption", {}, el("b", {}, "Section ", el("bdi", {}, section.name)), el("span", { class: "dim" }, group, `, ${section.n.toLocaleString("en")} samples`), this.bar),
      this.field, this.readout);
    this.listen();
  }

  listen() {
    for (const panel of this.panels) {
      const point = (event) => {
        const box = panel.canvas.getBoundingClientRect();
        this.choose(panel.nearest(event.clientX - box.left, event.clientY - box.top));
      };
      panel.canvas.addEventListener("pointermove", point);
      panel.canvas.addEventListener("pointerdown", point);
    }
    this.field.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") this.choose(null); });
    this.field.addEventListener("keydown", (event) => {
      if (!(event.key in ARROWS)) return;
      event.preventDefault();
      const from = this.panels[0].chosen;
      this.choose(from === null ? this.section.first : this.panels[0].beside(from, ARROWS[event.key]));
    });
  }

  choose(i) {
    if (i === this.panels[0].chosen) return;
    for (const panel of this.panels) panel.chosen = i;
    this.draw();
    const parts = i === null ? [] : this.panels.map(({ panel }) => ` · ${panel.name} ${num(panel.value(i))}`);
    this.readout.replaceChildren(...(i === null ? [] : [el("bdi", {}, this.maps.ids[i]), parts.join("")]));
  }

  draw() {
    const theme = themeNow();
    for (const panel of this.panels) panel.draw(theme);
    const { microns } = this.section;
    this.bar.hidden = !(microns > 0);
    if (this.bar.hidden) return;
    const { canvas, factor } = this.panels[0];
    const { length, told } = roundLength((0.4 * canvas.clientWidth * microns) / factor);
    this.bar.style.setProperty("--length", `${(length / microns) * factor}px`);
    this.bar.textContent = told;
  }
}

function startMaps() {
  const maps = readMaps(find("map-data"));
  const all = maps.sections.map((section) => new SectionMaps(maps, section));
  find("maps").replaceChildren(...all.map((one) => one.node));
  find("maps").classList.toggle("single", maps.panels.length === 1);
  const seen = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const one = all.find(({ node }) => node === target);
      if (!isIntersecting || seen.has(one)) continue;
      seen.add(one);
      one.draw();
    }
  }, { rootMargin: "600px" });
  for (const one of all) watcher.observe(one.node);
  const again = (whole) => {
    find("map-legend").replaceChildren(...maps.scales.map((scale) => legendOf(scale, themeNow())));
    for (const one of whole ? all : seen) one.draw();
  };
  document.addEventListener("elute:theme", () => again(false));
  addEventListener("resize", () => again(false));
  addEventListener("beforeprint", () => again(true));
  addEventListener("afterprint", () => again(false));
  again(false);
}

if (find("map-data")) startMaps();
document.body.dataset.read = "";
