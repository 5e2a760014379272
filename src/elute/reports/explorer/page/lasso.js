// What a lasso holds, and what is special there: points in an outline, features that are higher in some cells than in
// the others, cells in which some features fire. Plain functions of arrays.
//
// Codes of a group of features, decoded: `from[i]` to `from[i + 1]` are feature i's entries, `places` their cells,
// `levels` from 1 to 255 their activations as shares of `top[i]`.

const MAP_CORNERS = 100; // of an outline that is kept, so that it fits into an address
const MAP_DRAWS = 3; // of as many cells at random, as a control
const MAP_PRIOR = 3; // cells with the variance of all, by which few cells are kept from looking alike
const [MAP_LEAST, MAP_SPAN, MAP_STEPS] = [-0.2, 1.4, 36 ** 3 - 1]; // of outlines in units, as they are written

/** Whether a place lies in an outline [x0, y0, x1, y1, …], which may cross itself: inside is what an odd number of turns holds. */
function mapInPolygon(path, x, y) {
  let inside = false;
  for (let k = 0, last = path.length - 2; k < path.length; last = k, k += 2) {
    const [ax, ay, bx, by] = [path[k], path[k + 1], path[last], path[last + 1]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

/** One byte a point, 1 where the outline holds it, and how many it holds. */
function mapInside({ x, y }, path) {
  const flags = new Uint8Array(x.length);
  const [xs, ys] = [path.filter((_, k) => k % 2 === 0), path.filter((_, k) => k % 2 === 1)];
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  let count = 0;
  for (let i = 0; i < x.length; i += 1) {
    if (!(x[i] >= left && x[i] <= right && y[i] >= low && y[i] <= high)) continue;
    if (mapInPolygon(path, x[i], y[i])) count += flags[i] = 1;
  }
  return { flags, count };
}

/** Fewer corners: those that lie some way apart. */
function mapThin(path, most = MAP_CORNERS) {
  let kept = path;
  for (let step = 0.0005; kept.length > 2 * most; step *= 1.4) {
    kept = path.slice(0, 2);
    for (let k = 2; k < path.length; k += 2) {
      const [x, y] = kept.slice(-2);
      if (Math.hypot(path[k] - x, path[k + 1] - y) >= step) kept.push(path[k], path[k + 1]);
    }
  }
  return kept;
}

/** An outline as the address has it: which map, and three letters a coordinate. */
function mapWriteLasso(side, path) {
  const write = (value) => {
    const step = Math.round(((value - MAP_LEAST) / MAP_SPAN) * MAP_STEPS);
    return Math.max(0, Math.min(MAP_STEPS, step)).toString(36).padStart(3, "0");
  };
  return `${side}:${mapThin(path).map(write).join("")}`;
}

/** What the address says of a lasso; null where it says nothing that can be drawn. */
function mapReadLasso(text) {
  const found = /^(cells|features):((?:[0-9a-z]{6}){3,130})$/.exec(text ?? "");
  if (!found) return null;
  const path = found[2].match(/.{3}/g).map((part) => MAP_LEAST + (MAP_SPAN * Number.parseInt(part, 36)) / MAP_STEPS);
  return { side: found[1], path };
}

/** The codes of one block: differences become places. */
function mapDecode(block) {
  const [cells, values] = [block.column("cells"), block.column("values")];
  const from = cells.offsets;
  const [steps, places] = [cells.of.stored, new Uint32Array(cells.of.length)];
  for (let i = 0; i < block.rows; i += 1) {
    let sum = 0;
    for (let k = from[i]; k < from[i + 1]; k += 1) places[k] = sum += steps[k];
  }
  return { rows: block.rows, from, places, levels: values.of.stored, top: block.column("top").numbers(),
    fires: block.column("fires")?.numbers() ?? null, floor: block.column("floor")?.numbers() ?? null };
}

/** A value for each of n cells: 0 where the row of the codes has none. */
function mapSpread(codes, row, n) {
  const values = new Float32Array(n);
  const factor = codes.top[row] / 255;
  for (let k = codes.from[row]; k < codes.from[row + 1]; k += 1) values[codes.places[k]] = codes.levels[k] * factor;
  return values;
}

/** Numbers that look random and are the same each time. */
function mapRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let word = Math.imul(state ^ (state >>> 15), state | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return ((word ^ (word >>> 14)) >>> 0) / 4294967296;
  };
}

/** Flags of `count` of n cells, drawn at random without repeats. */
function mapDraw(n, count, seed) {
  const random = mapRandom(seed);
  const flags = new Uint8Array(n);
  for (let i = 0, left = count; i < n && left; i += 1) {
    if (random() * (n - i) < left) left -= flags[i] = 1;
  }
  return flags;
}

/**
 * How much higher a feature is inside than outside, in standard errors of that difference, from sums of its values and
 * of their squares. The variance inside is held to that of all cells as if there were a few cells more.
 */
function mapContrast({ sum, square, inside, insideSquare, count, of }) {
  const rest = of - count;
  const [mean, meanRest] = [inside / count, rest ? (sum - inside) / rest : 0];
  const spread = (squares, average, n) => Math.max(0, squares - n * average * average);
  const all = spread(square, sum / of, of) / Math.max(1, of - 1);
  const variance = (spread(insideSquare, mean, count) + MAP_PRIOR * all) / (count - 1 + MAP_PRIOR);
  const varianceRest = (spread(square - insideSquare, meanRest, rest) + MAP_PRIOR * all) / (Math.max(0, rest - 1) + MAP_PRIOR);
  const error = Math.sqrt(variance / count + (rest ? varianceRest / rest : 0));
  return { mean, meanRest, contrast: error > 0 ? (mean - meanRest) / error : 0 };
}

/** The features of decoded groups against cells inside: a row for each that fires, from the group that begins at `first`. */
function mapContrasts(codes, { flags, count, first }) {
  const of = flags.length;
  const rows = [];
  for (let i = 0; i < codes.rows; i += 1) {
    const [start, stop] = [codes.from[i], codes.from[i + 1]];
    let [sum, square, inside, insideSquare, fires] = [0, 0, 0, 0, 0];
    for (let k = start; k < stop; k += 1) {
      const level = codes.levels[k];
      sum += level;
      square += level * level;
      if (flags[codes.places[k]]) {
        inside += level;
        insideSquare += level * level;
        fires += 1;
      }
    }
    if (start === stop) continue;
    const { mean, meanRest, contrast } = mapContrast({ sum, square, inside, insideSquare, count, of });
    const unit = codes.top[i] / 255;
    rows.push({ place: first + i, contrast, mean: mean * unit, meanRest: meanRest * unit, fires, firesRest: stop - start - fires });
  }
  return rows;
}

/** The largest contrast that any feature reaches with as many cells drawn at random. */
function mapByChance(codes, { n, count, first, draws }) {
  let most = -Infinity;
  for (const flags of draws ?? Array.from({ length: MAP_DRAWS }, (_, k) => mapDraw(n, count, k + 1))) {
    for (const row of mapContrasts(codes, { flags, count, first })) most = Math.max(most, row.contrast);
  }
  return most;
}

/** The rows with the largest contrast, those above 0 alone. */
function mapStrongest(rows, most) {
  return rows.filter((row) => row.contrast > 0).sort((a, b) => b.contrast - a.contrast || a.place - b.place).slice(0, most);
}

/** Add to each cell's sum how strongly the chosen features of this group fire in it, as shares of their largest; how many ever fire. */
function mapAddStrength(codes, { flags, first, sums }) {
  let fire = 0;
  for (let i = 0; i < codes.rows; i += 1) {
    if (!flags[first + i] || codes.from[i] === codes.from[i + 1]) continue;
    fire += 1;
    for (let k = codes.from[i]; k < codes.from[i + 1]; k += 1) sums[codes.places[k]] += codes.levels[k] / 255;
  }
  return fire;
}
