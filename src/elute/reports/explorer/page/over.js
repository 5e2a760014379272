// What lies over the points of a map: names of groups, rings, the lasso, the cross of who moves by keys.

/** Draw it; colours are the map's `ink`: {text, ground, mark}. */
function mapDrawOver(map, size) {
  const { overlay, size: [width, height] } = map;
  const context = overlay.getContext("2d");
  const ratio = overlay.width / Math.max(1, width);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const { scale, left, top } = map.camera;
  const pixels = (path) => path.map((value, k) => (k % 2 ? top : left) + scale * value);
  if (map.outline) mapDrawPath(context, pixels(map.outline), map.ink, true);
  if (map.path) mapDrawPath(context, map.path, map.ink, false);
  mapDrawNames(context, map);
  if (map.marked >= 0) mapDrawRing(context, map.toPixels(map.marked), size / 2 + 5, map.ink);
  if (map.hovered >= 0) mapDrawRing(context, map.toPixels(map.hovered), size / 2 + 2.5, map.ink);
  if (map.keyed) mapDrawCross(context, width / 2, height / 2, map.ink);
}

function mapDrawPath(context, path, { mark, ground }, closed) {
  context.beginPath();
  for (let k = 0; k < path.length; k += 2) context.lineTo(path[k], path[k + 1]);
  context.closePath();
  context.globalAlpha = 0.1;
  context.fillStyle = mark;
  context.fill();
  context.globalAlpha = 1;
  context.setLineDash([]);
  context.lineWidth = 3.5;
  context.strokeStyle = ground;
  context.stroke();
  context.setLineDash(closed ? [6, 4] : []);
  context.lineWidth = 1.7;
  context.strokeStyle = mark;
  context.stroke();
  context.setLineDash([]);
}

function mapDrawRing(context, [x, y], radius, { text, ground }) {
  for (const [colour, width] of [[ground, 4.5], [text, 1.8]]) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
}

function mapDrawCross(context, x, y, { text, ground }) {
  for (const [colour, width] of [[ground, 4.5], [text, 1.5]]) {
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 8 * dx, y + 8 * dy);
      context.lineTo(x + 18 * dx, y + 18 * dy);
    }
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
}

/** Names at their places, the first ones first; one that would lie on another is left out, as zooming in shows it. */
function mapDrawNames(context, map) {
  const { scale, left, top } = map.camera;
  const [width, height] = map.size;
  const taken = [];
  context.font = "600 12px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  for (const { x, y, text } of map.labels) {
    const half = context.measureText(text).width / 2 + 4;
    const at = [left + scale * x, top + scale * y];
    if (at[0] < 0 || at[0] > width || at[1] < 0 || at[1] > height) continue;
    at[0] = Math.max(half, Math.min(width - half, at[0]));
    at[1] = Math.max(10, Math.min(height - 10, at[1]));
    if (taken.some((box) => Math.abs(box[0] - at[0]) < box[2] + half && Math.abs(box[1] - at[1]) < 16)) continue;
    taken.push([...at, half]);
    context.lineWidth = 3.5;
    context.strokeStyle = map.ink.ground;
    context.strokeText(text, ...at);
    context.fillStyle = map.ink.text;
    context.fillText(text, ...at);
  }
}
