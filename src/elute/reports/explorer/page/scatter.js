// A map of points: what is in view, how large points are, which one is under the pointer, what is chosen; and above the
// points, on a canvas of its own, names, rings and the lasso. Points are drawn by marks.js, moved by gestures.js.

const MAP_MARGIN = 18; // pixels around all points
const MAP_ZOOMS = [0.5, 600]; // of the view that holds all points

class Scatter {
  /** `on` is called: hover(i, x, y, keyed), pick(i), lasso(path), clear(), mode(lassoing). `flat`: never by WebGL. */
  constructor(canvas, { points, on = {}, flat = false }) {
    this.on = on;
    this.units = mapUnits(points);
    this.n = points.x.length;
    this.grid = mapGrid(this.units);
    this.camera = { scale: 1, left: 0, top: 0 };
    Object.assign(this, { fitted: true, lassoing: false, keyed: false, hovered: -1, marked: -1, labels: [], path: null, outline: null });
    Object.assign(this, { sequence: null, flags: null, rgba: null, waiting: [], frame: 0, size: [0, 0], ratio: 1, ink: {} });
    this.overlay = document.createElement("canvas");
    this.overlay.className = "map-overlay";
    this.overlay.setAttribute("aria-hidden", "true");
    canvas.after(this.overlay);
    this.take(canvas, flat);
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(this.canvas.parentElement);
    this.resize();
  }

  /** Draw on this canvas from now on. */
  take(canvas, flat) {
    this.canvas = canvas;
    try {
      if (flat) throw new Error("WebGL is not wanted.");
      this.marks = new GlMarks(canvas, this.units);
      canvas.addEventListener("webglcontextlost", (event) => this.lost(event));
      canvas.addEventListener("webglcontextrestored", () => this.restored());
    } catch {
      // a canvas that was once asked for WebGL may refuse another context: a fresh one does not
      const fresh = canvas.cloneNode(false);
      canvas.replaceWith(fresh);
      this.canvas = fresh;
      this.marks = new FlatMarks(fresh, this.units);
    }
    this.gestures?.stop();
    this.gestures = new MapGestures(this, this.canvas);
  }

  /** The graphics card forgot all: it may come back; where it does not, points are drawn without it. */
  lost(event) {
    event.preventDefault();
    if (this.gone) return;
    this.patience = setTimeout(() => this.withoutCard(), 1500);
  }

  restored() {
    clearTimeout(this.patience);
    this.marks.setUp();
    this.draw();
  }

  withoutCard() {
    const focused = document.activeElement === this.canvas;
    const fresh = this.canvas.cloneNode(false);
    this.canvas.replaceWith(fresh);
    this.take(fresh, true);
    if (focused) this.canvas.focus();
    if (this.rgba) this.marks.colors(this.rgba);
    this.select(this.flags);
    this.resize();
  }

  get drawnBy() { return this.marks.kind; }

  /** Four bytes a point, and the order in which points are drawn. */
  setColors(rgba, order = null) {
    this.rgba = rgba;
    this.sequence = order;
    this.marks.colors(rgba);
    this.arrange();
  }

  /** Which points are chosen: the others fade. Null: none is, all are as they were. */
  select(flags) {
    this.flags = flags;
    this.marks.chosen(flags);
    this.arrange();
  }

  /** What is chosen lies on top. */
  arrange() {
    let order = this.sequence;
    if (this.flags) {
      const from = order ?? Uint32Array.from({ length: this.n }, (_, i) => i);
      order = new Uint32Array(this.n);
      let at = 0;
      for (const i of from) if (!this.flags[i]) order[at++] = i;
      for (const i of from) if (this.flags[i]) order[at++] = i;
    }
    if (order) this.marks.order(order);
    this.draw();
  }

  setLabels(labels) { this.labels = labels; this.draw(); }

  /** Put a ring around a point, until another is named. */
  mark(i) { this.marked = i; this.draw(); }

  setOutline(path) { this.outline = path; this.draw(); }

  showPath(path) { this.path = path; this.draw(); }

  setLassoing(lassoing) {
    this.lassoing = lassoing;
    this.canvas.classList.toggle("lassoing", lassoing);
    this.on.mode?.(lassoing);
  }

  /** Whether the camera is worked by keys: then the point at the middle is the one spoken of. */
  setKeyed(keyed) {
    if (this.keyed === keyed) return;
    this.keyed = keyed;
    this.hover(-1);
    this.draw();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    const most = this.drawnBy === "canvas" && this.n > 50_000 ? 1.25 : 2; // dots a pixel: more cost more than they show
    const ratio = Math.min(globalThis.devicePixelRatio || 1, most);
    const [wide, high] = this.size;
    const same = wide === width && high === height && ratio === this.ratio;
    Object.assign(this, { size: [width, height], ratio });
    for (const each of [this.canvas, this.overlay]) {
      const dots = each === this.overlay ? globalThis.devicePixelRatio || 1 : ratio;
      if (!same || each.width !== Math.round(width * dots)) [each.width, each.height] = [Math.round(width * dots), Math.round(height * dots)];
    }
    if (!width || !height) return;
    if (this.fitted) this.fit();
    else if (!same) this.pan((width - wide) / 2, (height - high) / 2);
    this.draw();
  }

  /** The scale at which all points are in view. */
  whole() {
    const [width, height] = this.size;
    const { width: w, height: h } = this.units;
    return Math.max(1, Math.min((width - 2 * MAP_MARGIN) / (w || 1e-9), (height - 2 * MAP_MARGIN) / (h || 1e-9), 4 * Math.max(width, height)));
  }

  fit() {
    const scale = this.whole();
    const [width, height] = this.size;
    this.camera = { scale, left: (width - scale * this.units.width) / 2, top: (height - scale * this.units.height) / 2 };
    this.fitted = true;
    this.moved();
  }

  pan(dx, dy) {
    const { scale, left, top } = this.camera;
    const [width, height] = this.size;
    const keep = (value, room, long) => Math.max(room / 2 - scale * long, Math.min(room / 2, value)); // a point of the map stays at the middle
    this.camera = { scale, left: keep(left + dx, width, this.units.width), top: keep(top + dy, height, this.units.height) };
    this.fitted = false;
    this.moved();
  }

  /** Zoom about a place, given in pixels: the middle where it is not. */
  zoom(factor, x = this.size[0] / 2, y = this.size[1] / 2) {
    const { scale, left, top } = this.camera;
    const [low, high] = MAP_ZOOMS.map((each) => each * this.whole());
    const next = Math.max(low, Math.min(high, scale * factor));
    this.camera = { scale: next, left: x - ((x - left) * next) / scale, top: y - ((y - top) * next) / scale };
    this.pan(0, 0);
  }

  moved() {
    if (this.keyed) this.hoverAt(this.size[0] / 2, this.size[1] / 2);
    this.draw();
  }

  toUnits(x, y) {
    const { scale, left, top } = this.camera;
    return [(x - left) / scale, (y - top) / scale];
  }

  toPixels(i) {
    const { scale, left, top } = this.camera;
    return [left + scale * this.units.x[i], top + scale * this.units.y[i]];
  }

  look() {
    return mapLook(this.n, this.size[0] * this.size[1] || 1, this.camera.scale / this.whole());
  }

  /** The point at a place given in pixels; −1 where there is none. */
  pointAt(x, y, reach = 0) {
    const near = Math.max(reach, 6, this.look().size / 2 + 3);
    return mapNearest(this.grid, ...this.toUnits(x, y), near / this.camera.scale, this.flags);
  }
  /** The pointer is at this place: tell which point is there. */
  hoverAt(x, y) {
    const i = this.path ? -1 : this.pointAt(x, y, this.keyed ? 24 : 0);
    this.hover(i, x, y);
  }

  hover(i, x = 0, y = 0) {
    if (i < 0 && this.hovered < 0) return;
    const other = this.hovered !== i;
    this.hovered = i;
    this.on.hover?.(i, ...(i >= 0 ? this.toPixels(i) : [x, y]), this.keyed);
    if (other) this.draw();
  }

  /** Take the point at a place; a finger is told what it hit, as it has no pointer that rests. */
  takeAt(x, y, reach = 0) {
    const i = this.pointAt(x, y, reach);
    if (i < 0) return;
    if (reach) this.hover(i, x, y);
    this.on.pick?.(i);
  }

  takeMiddle() {
    if (this.hovered >= 0) this.on.pick?.(this.hovered);
  }

  /** A lasso around all that is in view: what keys and short fingers can do. */
  takeView() {
    const [width, height] = this.size;
    const [left, top] = this.toUnits(0, 0);
    const [right, foot] = this.toUnits(width, height);
    this.on.lasso?.([left, top, right, top, right, foot, left, foot]);
  }

  /** A lasso was drawn, in pixels. */
  closePath(path) {
    const units = [];
    for (let k = 0; k < path.length; k += 2) units.push(...this.toUnits(path[k], path[k + 1]));
    this.setLassoing(false);
    this.on.lasso?.(units);
  }

  /** Esc: leave the lasso, or what is chosen; whether there was anything to leave. */
  giveUp() {
    if (this.lassoing) this.setLassoing(false);
    else if (this.outline || this.flags) this.on.clear?.();
    else return false;
    return true;
  }

  draw() {
    this.frame ||= requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.frame = 0;
    if (this.gone) return;
    const { ratio, camera: { scale, left, top } } = this;
    const { size, alpha } = this.look();
    this.marks.draw({ scale: scale * ratio, left: left * ratio, top: top * ratio }, { size: size * ratio, alpha });
    mapDrawOver(this, size);
    const waiting = this.waiting.splice(0);
    if (waiting.length) this.marks.finished().then(() => waiting.forEach((done) => done()));
  }

  /** Resolves when what was asked so far is drawn. */
  drawn() {
    return new Promise((done) => {
      this.waiting.push(done);
      this.draw();
    });
  }

  destroy() {
    this.gone = true;
    clearTimeout(this.patience);
    cancelAnimationFrame(this.frame);
    this.watch.disconnect();
    this.gestures.stop();
    this.marks.destroy();
    this.overlay.remove();
    for (const done of this.waiting.splice(0)) done();
  }
}
