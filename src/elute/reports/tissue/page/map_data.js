// What the maps are drawn from: places and values in 16-bit steps, and the colours of their scales.

const NONE = 65535; // a value that is not known
const STEPS = 65534;
// About zero: blue below, orange above, and in the middle nearly the page's own ground.
const ABOUT_ZERO = {
  light: ["#0d4a94", "#6ba3d8", "#e4e8ec", "#e59a5c", "#9c3d0a"],
  dark: ["#6cc4ff", "#2f78b8", "#27303b", "#b8702c", "#ffb25e"],
};

function words16(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Uint16Array.from({ length: bytes.length / 2 }, (_, i) => view.getUint16(2 * i, true));
}

/** Read what lies in the page: sections with their first sample, places, and a function a column. */
function readMaps(node) {
  const told = JSON.parse(node.textContent);
  const places = words16(told.places);
  const columns = {};
  for (const [name, { low, high, steps }] of Object.entries(told.values)) {
    const all = words16(steps);
    columns[name] = (i) => (all[i] === NONE ? NaN : low + (all[i] / STEPS) * (high - low));
  }
  let at = 0;
  for (const section of told.sections) {
    section.first = at;
    at += section.n;
  }
  const panels = told.panels.map(({ name, column, minus, scale }) => ({
    name,
    scale: told.scales[scale],
    value: minus ? (i) => columns[column](i) - columns[minus](i) : columns[column],
  }));
  return { sections: told.sections, ids: told.ids, panels, scales: Object.values(told.scales), places };
}

/** The colours of 255 levels, as the page's theme has them. */
function coloursOf(scale, theme) {
  const table = scale.kind === "ramp" ? mapRampTable(theme).subarray(4) : zeroTable(ABOUT_ZERO[theme]);
  return Array.from({ length: table.length / 4 }, (_, i) => `rgb(${table[4 * i]} ${table[4 * i + 1]} ${table[4 * i + 2]})`);
}

function zeroTable(hexes) {
  const stops = hexes.map(mapRgb);
  const table = new Uint8Array(4 * 255);
  for (let i = 0; i < 255; i += 1) {
    const at = (i / 254) * (stops.length - 1);
    const first = Math.min(Math.floor(at), stops.length - 2);
    const share = at - first;
    table.set(stops[first].map((low, k) => Math.round(low + share * (stops[first + 1][k] - low))), 4 * i);
  }
  return table;
}

/** The colour of a value; what lies beyond the ends has the colour of the end. */
function colourOf(value, scale, colours) {
  const share = (value - scale.low) / (scale.high - scale.low);
  return colours[Math.round(Math.min(1, Math.max(0, share)) * (colours.length - 1))];
}

/** A round length in micrometres of at most so many, and how it is written. */
function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((factor) => factor * power).find((one) => one <= most);
  return { length, told: length >= 1000 ? `${num(length / 1000)} mm` : `${num(length)} µm` };
}
