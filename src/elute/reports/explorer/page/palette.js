// Colours of points on a map: at most 20 named groups, numbers from low to high, and what has none.
// The groups' colours were chosen by search: far apart in OKLab for normal sight and for three kinds of colour
// blindness, the first ones farthest, on a dark and on a light ground. Names stand on the map and in the legend as well.

const MAP_MOST_GROUPS = 20;
const MAP_THEMES = {
  dark: {
    groups: ["#549de5", "#fafc46", "#be2517", "#f99532", "#8a3db8", "#52f1f9", "#ea5da9", "#176e4a", "#e9d6a3", "#bcb3fa",
      "#8abfa2", "#6e6bed", "#a1e24c", "#868604", "#20c45f", "#bb4cb5", "#cf6b5b", "#dafed2", "#efb8d1", "#669a7e"],
    others: "#6b7583",
    none: "#333d49",
    ramp: ["#044fa3", "#086c9b", "#0e849e", "#099ca3", "#08b5a2", "#11d091", "#7de07c", "#c1ec69", "#fdf562"],
  },
  light: {
    groups: ["#2b64c3", "#f09c17", "#8a0700", "#59bbfb", "#78792b", "#56147a", "#f05b93", "#984780", "#8e71f5", "#075449",
      "#279ea4", "#db7a58", "#4638b6", "#8095d6", "#c05b6e", "#81520a", "#47416b", "#746aab", "#ab8704", "#7d1991"],
    others: "#a9b3be",
    none: "#d8dee4",
    ramp: ["#9ce673", "#3ed58b", "#12b9a0", "#0b9da3", "#0e819e", "#06659b", "#1a41a4", "#371b88", "#320062"],
  },
};
const MAP_LEVELS = 255; // of a number between low and high; level 0 is none

/** Red, green and blue of a colour written as #rrggbb. */
function mapRgb(hex) {
  const whole = Number.parseInt(hex.slice(1), 16);
  return [whole >> 16, (whole >> 8) & 255, whole & 255];
}

/** Which theme a ground asks for, by its brightness; it is told as browsers tell a computed colour: rgb(…). */
function mapThemeOf(ground) {
  const parts = (String(ground).match(/[\d.]+/g) ?? []).map(Number);
  if (parts.length < 3 || parts[3] === 0) return "light";
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] < 128 ? "dark" : "light";
}

/** The colours of levels 0 (none) to MAP_LEVELS, four bytes each. */
function mapRampTable(theme) {
  const { none, ramp } = MAP_THEMES[theme];
  const table = new Uint8Array(4 * (MAP_LEVELS + 1));
  table.set([...mapRgb(none), 255]);
  const stops = ramp.map(mapRgb);
  for (let level = 1; level <= MAP_LEVELS; level += 1) {
    const at = ((level - 1) / (MAP_LEVELS - 1)) * (stops.length - 1);
    const first = Math.min(Math.floor(at), stops.length - 2);
    const share = at - first;
    for (let i = 0; i < 3; i += 1) {
      table[4 * level + i] = Math.round(stops[first][i] * (1 - share) + stops[first + 1][i] * share);
    }
    table[4 * level + 3] = 255;
  }
  return table;
}

/** The level of each number: none for what is absent and, where `aboveZero`, for 0; the ends hold what lies beyond them. */
function mapLevelsOf(values, { low, high, aboveZero }) {
  const levels = new Uint16Array(values.length);
  const factor = high > low ? (MAP_LEVELS - 1) / (high - low) : 0;
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i];
    if (Number.isNaN(value) || (aboveZero && !(value > 0))) continue;
    const level = factor ? 1 + (value - low) * factor : MAP_LEVELS;
    levels[i] = level < 1 ? 1 : level > MAP_LEVELS ? MAP_LEVELS : Math.round(level);
  }
  return levels;
}

/** Which colour each group gets: the most frequent ones 1, 2, …; the others 0. */
function mapSlotsOf(counts, most = MAP_MOST_GROUPS) {
  const order = Array.from(counts.keys()).filter((code) => counts[code] > 0);
  order.sort((a, b) => counts[b] - counts[a] || a - b);
  const slots = new Uint16Array(counts.length);
  order.slice(0, most).forEach((code, i) => { slots[code] = i + 1; });
  return { slots, order };
}

/** The colours of slots: 0 the others, 1… the groups, and after them what has no group. */
function mapGroupTable(theme) {
  const { others, groups, none } = MAP_THEMES[theme];
  return Uint8Array.from([others, ...groups, none].flatMap((hex) => [...mapRgb(hex), 255]));
}

/** Four bytes a point, from its level and the colours of the levels. */
function mapShade(levels, table) {
  const colours = new Uint32Array(levels.length);
  const known = new Uint32Array(table.buffer, table.byteOffset, table.length / 4);
  for (let i = 0; i < levels.length; i += 1) colours[i] = known[levels[i]];
  return new Uint8Array(colours.buffer);
}

/** The order of drawing: higher ranks later, so on top; within a rank mixed, so that no part of the file covers another. */
function mapOrderOf(ranks, most) {
  const n = ranks.length;
  const starts = new Uint32Array(most + 2);
  for (let i = 0; i < n; i += 1) starts[ranks[i] + 1] += 1;
  for (let rank = 0; rank <= most; rank += 1) starts[rank + 1] += starts[rank];
  const order = new Uint32Array(n);
  const stride = mapStride(n);
  for (let i = 0, at = 0; i < n; i += 1) {
    order[starts[ranks[at]]] = at;
    starts[ranks[at]] += 1;
    at += stride;
    if (at >= n) at -= n;
  }
  return order;
}

/** A step that visits each of n places once. */
function mapStride(n) {
  const shared = (a, b) => (b ? shared(b, a % b) : a);
  let stride = Math.max(1, Math.round(n * 0.618));
  while (shared(stride, n) > 1) stride += 1;
  return n > 1 ? stride % n : 1;
}
