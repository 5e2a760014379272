// What a mouse, fingers and keys do to a map: pan, zoom, take a point, draw a lasso. The map itself is scatter.js's.

const MAP_STILL = 5; // pixels that a click may move
const MAP_STRIDE = 48; // pixels that an arrow key pans
const MAP_KEYS = {
  ArrowLeft: (map) => map.pan(MAP_STRIDE, 0),
  ArrowRight: (map) => map.pan(-MAP_STRIDE, 0),
  ArrowUp: (map) => map.pan(0, MAP_STRIDE),
  ArrowDown: (map) => map.pan(0, -MAP_STRIDE),
  "+": (map) => map.zoom(1.4),
  "=": (map) => map.zoom(1.4),
  "-": (map) => map.zoom(1 / 1.4),
  _: (map) => map.zoom(1 / 1.4),
  0: (map) => map.fit(),
  Home: (map) => map.fit(),
  l: (map) => map.setLassoing(!map.lassoing),
  s: (map) => map.takeView(),
  Enter: (map) => map.takeMiddle(),
  " ": (map) => map.takeMiddle(),
};

class MapGestures {
  /** Listen on a map's canvas until `stop` is called. */
  constructor(map, canvas) {
    this.map = map;
    this.canvas = canvas;
    this.fingers = new Map(); // pointer: where it is
    this.path = null; // of the lasso that is being drawn, in pixels
    this.moved = 0;
    this.ending = new AbortController();
    const listen = (name, act, options = {}) =>
      canvas.addEventListener(name, (event) => act.call(this, event), { signal: this.ending.signal, ...options });
    listen("pointerdown", this.down);
    listen("pointermove", this.move);
    listen("pointerup", this.up);
    listen("pointercancel", this.cancel);
    listen("pointerleave", () => this.map.hover(-1));
    listen("wheel", this.wheel, { passive: false });
    listen("keydown", this.key);
    listen("blur", () => this.map.setKeyed(false));
    listen("contextmenu", (event) => event.shiftKey && event.preventDefault());
  }

  stop() {
    this.ending.abort();
  }

  where(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (event.button !== 0) return;
    this.map.setKeyed(false);
    const [x, y] = this.where(event);
    this.fingers.set(event.pointerId, [x, y]);
    try {
      this.canvas.setPointerCapture(event.pointerId);
    } catch {
      // a pointer that is gone already has nothing to hold
    }
    if (this.fingers.size > 1) {
      this.drop(); // a second finger pinches
      return;
    }
    this.moved = 0;
    if (this.map.lassoing || event.shiftKey) {
      this.path = [x, y];
      event.preventDefault();
    }
    this.map.hover(-1);
  }

  move(event) {
    const now = this.where(event);
    const before = this.fingers.get(event.pointerId);
    if (before === undefined) {
      if (event.pointerType !== "touch") this.map.hoverAt(...now);
      return;
    }
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    this.moved += Math.hypot(dx, dy);
    if (this.fingers.size === 2) this.pinch(event.pointerId, now);
    else if (this.path) {
      this.path.push(...now);
      this.map.showPath(this.path);
    } else if (this.fingers.size === 1 && this.moved > MAP_STILL) this.map.pan(dx, dy);
    this.fingers.set(event.pointerId, now);
  }

  /** Two fingers zoom about the place between them, and move it along. */
  pinch(id, now) {
    const other = [...this.fingers].find(([each]) => each !== id)[1];
    const before = this.fingers.get(id);
    const spread = (a, b) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
    this.map.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    this.map.zoom(spread(now, other) / spread(before, other), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }

  up(event) {
    if (!this.fingers.delete(event.pointerId)) return;
    const path = this.path;
    this.drop();
    if (this.fingers.size) {
      this.moved = Infinity; // the last finger of a pinch takes nothing
    } else if (path && this.moved > MAP_STILL) this.map.closePath(path);
    else if (this.moved <= MAP_STILL) this.map.takeAt(...this.where(event), event.pointerType === "touch" ? 18 : 0);
  }

  cancel(event) {
    this.fingers.delete(event.pointerId);
    this.drop();
  }

  /** Forget the lasso that is being drawn; whether there was one. */
  drop() {
    const drawing = this.path !== null;
    this.path = null;
    if (drawing) this.map.showPath(null);
    return drawing;
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1);
    this.map.zoom(Math.exp(-Math.max(-300, Math.min(300, pixels)) * (event.ctrlKey ? 0.008 : 0.0022)), ...this.where(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      if (!this.drop() && !this.map.giveUp()) return;
    } else {
      const act = MAP_KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!act) return;
      this.map.setKeyed(true);
      act(this.map);
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
