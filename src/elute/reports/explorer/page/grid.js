// Where points lie: in a box of length 1, sorted into squares so that the one under the pointer is found by looking at
// few; and how large they are drawn.

/** How large points are, in pixels, and how dense: many are small and let others shine through. */
function mapLook(n, area, zoom) {
  const room = Math.sqrt(area / Math.max(1, n));
  const size = Math.min(7, Math.max(1.7, 0.85 * room)) * Math.min(3.2, Math.max(0.8, zoom ** 0.38));
  const cover = (n * size * size) / (area * Math.max(1, zoom) ** 2);
  return { size, alpha: Math.min(0.95, Math.max(0.5, 1.1 - 0.22 * cover)) };
}

/** Points in a box whose longer side is 1, y downwards; those without a place lie far outside. */
function mapUnits({ x, y }) {
  const n = x.length;
  const there = (i) => Number.isFinite(x[i]) && Number.isFinite(y[i]);
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < n; i += 1) {
    if (!there(i)) continue;
    [left, right] = [Math.min(left, x[i]), Math.max(right, x[i])];
    [low, high] = [Math.min(low, y[i]), Math.max(high, y[i])];
  }
  const long = Math.max(right - left, high - low, 0) || 1;
  const size = (from, to) => Math.max(0, to - from) / long;
  const units = { x: new Float32Array(n).fill(-9), y: new Float32Array(n).fill(-9), width: size(left, right), height: size(low, high) };
  for (let i = 0; i < n; i += 1) {
    if (!there(i)) continue;
    units.x[i] = (x[i] - left) / long;
    units.y[i] = (high - y[i]) / long;
  }
  return units;
}

/** Points sorted into squares, so that the nearest one is found by looking at few. */
function mapGrid({ x, y }) {
  const n = x.length;
  const side = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(n / 3))));
  const square = (value) => Math.min(side - 1, Math.floor(value * side));
  const starts = new Uint32Array(side * side + 1);
  for (let i = 0; i < n; i += 1) if (x[i] >= 0) starts[square(y[i]) * side + square(x[i]) + 1] += 1;
  for (let k = 0; k < side * side; k += 1) starts[k + 1] += starts[k];
  const next = starts.slice();
  const members = new Uint32Array(starts[side * side]);
  for (let i = 0; i < n; i += 1) if (x[i] >= 0) members[next[square(y[i]) * side + square(x[i])]++] = i;
  return { side, starts, members, x, y };
}

/** The nearest point within reach; −1 where there is none. Of points at one place the one with the highest rank. */
function mapNearest({ side, starts, members, x, y }, px, py, reach, ranks = null) {
  const cut = (value) => Math.max(0, Math.min(side - 1, Math.floor(value * side)));
  let [best, least] = [-1, reach * reach];
  for (let row = cut(py - reach); row <= cut(py + reach); row += 1) {
    const from = row * side;
    for (let k = starts[from + cut(px - reach)]; k < starts[from + cut(px + reach) + 1]; k += 1) {
      const i = members[k];
      const away = (x[i] - px) ** 2 + (y[i] - py) ** 2;
      if (away < least || (away === least && (best < 0 || (ranks && ranks[i] >= ranks[best])))) [best, least] = [i, away];
    }
  }
  return best;
}
