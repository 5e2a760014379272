// One map of one section: its marks on a canvas, which of them is nearest to a place, and the ring about the chosen one.

const MARGIN = 6;

class MapPanel {
  constructor(maps, section, panel) {
    Object.assign(this, { maps, section, panel, chosen: null });
    this.canvas = el("canvas", { role: "img", "aria-label": this.told() });
    this.node = el("div", { class: "panel" }, el("span", { class: "panel-name" }, panel.name), this.canvas);
  }

  told() {
    const { first, n, name } = this.section;
    const known = Array.from({ length: n }, (_, i) => this.panel.value(first + i)).filter(Number.isFinite);
    const ends = known.length ? `from ${num(Math.min(...known))} to ${num(Math.max(...known))}` : "no values";
    return `Section ${name}, ${this.panel.name}: ${n} samples, ${ends}`;
  }

  /** Pixels of the canvas a pixel of the section. */
  measure() {
    const { width, height, mark } = this.section;
    const across = width + mark;
    const down = height + mark;
    const room = this.canvas.clientWidth - 2 * MARGIN;
    const most = (this.maps.panels.length > 1 ? 0.86 : 1.1) * this.canvas.clientWidth - 2 * MARGIN;
    this.factor = Math.min(room / across, most / down);
    this.left = MARGIN + (room - this.factor * across) / 2;
    return 2 * MARGIN + this.factor * down;
  }

  /** Where a sample is drawn. */
  place(i) {
    const { places, section } = { places: this.maps.places, section: this.section };
    const longer = Math.max(section.width, section.height);
    const [x, y] = [places[2 * i], places[2 * i + 1]].map((step) => (step / 65535) * longer + section.mark / 2);
    return [this.left + x * this.factor, MARGIN + y * this.factor];
  }

  draw(theme) {
    if (!this.canvas.clientWidth) return;
    const tall = this.measure();
    const dense = Math.min(3, Math.max(2, devicePixelRatio));
    this.canvas.style.setProperty("height", `${tall}px`);
    this.canvas.width = Math.round(this.canvas.clientWidth * dense);
    this.canvas.height = Math.round(tall * dense);
    const pen = this.canvas.getContext("2d");
    pen.scale(dense, dense);
    const colours = coloursOf(this.panel.scale, theme);
    const none = MAP_THEMES[theme].none;
    const size = Math.max(1.6, this.section.mark * this.factor);
    for (let i = this.section.first; i < this.section.first + this.section.n; i += 1) {
      const value = this.panel.value(i);
      const [x, y] = this.place(i);
      pen.fillStyle = Number.isFinite(value) ? colourOf(value, this.panel.scale, colours) : none;
      this.mark(pen, x, y, size);
      pen.fill();
    }
    if (this.chosen !== null) this.ring(pen, size);
  }

  mark(pen, x, y, size) {
    pen.beginPath();
    if (this.section.square) pen.rect(x - size / 2, y - size / 2, size + 0.3, size + 0.3);
    else pen.arc(x, y, size / 2, 0, 2 * Math.PI);
  }

  ring(pen, size) {
    const [x, y] = this.place(this.chosen);
    const ink = getComputedStyle(this.canvas);
    for (const [width, colour] of [[4, ink.backgroundColor], [2, ink.color]]) {
      this.mark(pen, x, y, size + 3);
      pen.lineWidth = width;
      pen.strokeStyle = colour;
      pen.stroke();
    }
  }

  /** The sample nearest to a place, if it is near enough. */
  nearest(x, y) {
    let [found, least] = [null, Math.max(12, this.section.mark * this.factor) ** 2];
    for (let i = this.section.first; i < this.section.first + this.section.n; i += 1) {
      const [a, b] = this.place(i);
      const far = (a - x) ** 2 + (b - y) ** 2;
      if (far < least) [found, least] = [i, far];
    }
    return found;
  }

  /** The nearest sample in a direction, for keys. */
  beside(from, [right, down]) {
    const [x, y] = this.place(from);
    let [found, least] = [from, Infinity];
    for (let i = this.section.first; i < this.section.first + this.section.n; i += 1) {
      const [a, b] = this.place(i);
      const [along, aside] = right ? [(a - x) * right, Math.abs(b - y)] : [(b - y) * down, Math.abs(a - x)];
      if (along > 0.5 && along + 3 * aside < least) [found, least] = [i, along + 3 * aside];
    }
    return found;
  }
}
