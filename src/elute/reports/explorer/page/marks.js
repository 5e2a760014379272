// Round points on a canvas: by WebGL2 where a graphics card does it, else by a rasteriser of our own, which blends discs
// into an image in memory: a WebGL that only imitates a card takes three to five times as long. Both take the same
// calls, and give the same picture but for the points' soft edges.
//
// A view is {scale, left, top} in dots of the canvas: a point lies at (left + scale·x, top + scale·y).

const MAP_AWAY = 0.13; // opacity, as a share, of what is not chosen while something is

const MAP_RIM = 48; // dots around an image in memory, so that a point at its edge is cut and not left out

const MAP_VERTEX = `#version 300 es
in vec2 place; in vec4 color; in float chosen;
uniform vec4 view; uniform float size; uniform float alpha; uniform float choosing;
out vec4 shade;
void main() {
  float away = choosing * (1.0 - step(0.5, chosen));
  gl_Position = vec4(place * view.xy + view.zw, 0.0, 1.0);
  gl_PointSize = size;
  shade = vec4(color.rgb, color.a * alpha * mix(1.0, ${MAP_AWAY}, away));
}`;
const MAP_FRAGMENT = `#version 300 es
precision highp float;
in vec4 shade; uniform float size; out vec4 ink;
void main() {
  float edge = clamp((0.5 - distance(gl_PointCoord, vec2(0.5))) * size + 0.5, 0.0, 1.0);
  float strength = shade.a * edge;
  ink = vec4(shade.rgb * strength, strength);
}`;

/** Whether a program plays the graphics card. */
function mapIsImitated(gl) {
  const told = gl.getExtension("WEBGL_debug_renderer_info");
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(String(gl.getParameter(told ? told.UNMASKED_RENDERER_WEBGL : gl.RENDERER)));
}

/** Points drawn by the graphics card. `make` throws where that cannot be. */
class GlMarks {
  constructor(canvas, { x, y }) {
    this.kind = "webgl";
    this.canvas = canvas;
    this.n = x.length;
    this.places = new Float32Array(2 * this.n);
    for (let i = 0; i < this.n; i += 1) this.places.set([x[i], y[i]], 2 * i);
    this.data = { place: this.places, color: new Uint8Array(4 * this.n).fill(128), chosen: new Uint8Array(this.n), order: null };
    this.choosing = false;
    const wanted = { failIfMajorPerformanceCaveat: true, premultipliedAlpha: true, antialias: false, depth: false, stencil: false };
    this.gl = canvas.getContext("webgl2", wanted);
    if (!this.gl) throw new Error("This browser has no WebGL2.");
    if (mapIsImitated(this.gl)) {
      this.destroy();
      throw new Error("WebGL2 is imitated by the processor.");
    }
    this.setUp();
  }

  /** Make programs and buffers: at the start, and after the context was lost. */
  setUp() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, MAP_VERTEX], [gl.FRAGMENT_SHADER, MAP_FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error("The graphics card does not take the program.");
    gl.useProgram(program);
    this.at = Object.fromEntries(["view", "size", "alpha", "choosing"].map((name) => [name, gl.getUniformLocation(program, name)]));
    this.buffers = {};
    const kinds = [["place", 2, gl.FLOAT, false], ["color", 4, gl.UNSIGNED_BYTE, true], ["chosen", 1, gl.UNSIGNED_BYTE, false]];
    for (const [name, width, type, whole] of kinds) {
      this.buffers[name] = gl.createBuffer();
      this.send(name);
      const place = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, width, type, whole, 0, 0);
    }
    this.buffers.order = gl.createBuffer();
    this.data.order ??= Uint32Array.from({ length: this.n }, (_, i) => i);
    this.send("order");
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  send(name) {
    const { gl } = this;
    const target = name === "order" ? gl.ELEMENT_ARRAY_BUFFER : gl.ARRAY_BUFFER;
    gl.bindBuffer(target, this.buffers[name]);
    gl.bufferData(target, this.data[name], name === "place" ? gl.STATIC_DRAW : gl.DYNAMIC_DRAW);
  }

  set(name, data) {
    this.data[name] = data;
    if (!this.gl.isContextLost()) this.send(name);
  }

  colors(rgba) { this.set("color", rgba); }

  order(order) { this.set("order", order); }

  chosen(flags) {
    this.choosing = flags !== null;
    if (flags) this.set("chosen", flags);
  }

  draw({ scale, left, top }, { size, alpha }) {
    const { gl, canvas: { width, height } } = this;
    if (gl.isContextLost() || !width || !height) return;
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform4f(this.at.view, (2 * scale) / width, (-2 * scale) / height, (2 * left) / width - 1, 1 - (2 * top) / height);
    gl.uniform1f(this.at.size, size);
    gl.uniform1f(this.at.alpha, alpha);
    gl.uniform1f(this.at.choosing, this.choosing ? 1 : 0);
    gl.drawElements(gl.POINTS, this.n, gl.UNSIGNED_INT, 0);
  }

  /** Resolves when the card has drawn what it was told: only then is a frame's time known. */
  async finished() {
    const { gl } = this;
    if (gl.isContextLost()) return;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    for (let turn = 0; turn < 500 && fence && gl.getSyncParameter(fence, gl.SYNC_STATUS) === gl.UNSIGNALED; turn += 1) {
      await new Promise((done) => { setTimeout(done, 1); });
    }
    gl.deleteSync(fence);
  }

  destroy() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

/** How much of each dot a disc covers, in 256ths: rows of `side` dots. */
function mapDisc(size) {
  const side = Math.max(1, Math.ceil(size));
  const cover = new Uint16Array(side * side);
  const middle = side / 2;
  for (let row = 0; row < side; row += 1) {
    for (let column = 0; column < side; column += 1) {
      const away = Math.hypot(column + 0.5 - middle, row + 0.5 - middle);
      cover[row * side + column] = Math.round(256 * Math.max(0, Math.min(1, size / 2 - away + 0.5)));
    }
  }
  return { side, cover };
}

/** Points drawn without a graphics card. */
class FlatMarks {
  constructor(canvas, { x, y }) {
    this.kind = "canvas";
    this.canvas = canvas;
    this.n = x.length;
    this.x = x;
    this.y = y;
    this.context = canvas.getContext("2d");
    if (!this.context) throw new Error("This browser draws on no canvas.");
    this.rgba = new Uint8Array(4 * this.n).fill(128);
    this.sequence = null;
    this.flags = null;
    this.image = null;
  }

  colors(rgba) { this.rgba = rgba; }

  order(order) { this.sequence = order; }

  chosen(flags) { this.flags = flags; }

  draw({ scale, left, top }, { size, alpha }) {
    const { width, height } = this.canvas;
    if (!width || !height) return;
    const [wide, high] = [width + 2 * MAP_RIM, height + 2 * MAP_RIM];
    if (this.image?.width !== wide || this.image?.height !== high) this.image = this.context.createImageData(wide, high);
    const dots = this.image.data;
    dots.fill(0);
    const disc = mapDisc(size);
    const half = disc.side / 2;
    const [near, far] = [256 * alpha, 256 * alpha * MAP_AWAY];
    for (let k = 0; k < this.n; k += 1) {
      const i = this.sequence === null ? k : this.sequence[k];
      const column = Math.round(left + scale * this.x[i] - half) + MAP_RIM;
      const row = Math.round(top + scale * this.y[i] - half) + MAP_RIM;
      if (!(column >= 0 && row >= 0 && column + disc.side <= wide && row + disc.side <= high)) continue;
      const strength = this.flags === null || this.flags[i] ? near : far;
      mapStamp(dots, { start: 4 * (row * wide + column), step: 4 * (wide - disc.side), disc, strength, rgba: this.rgba, at: 4 * i });
    }
    this.context.putImageData(this.image, -MAP_RIM, -MAP_RIM);
  }

  async finished() {} // what is drawn without a card is drawn at once

  destroy() {
    this.image = null;
  }
}

/** Blend one disc into an image whose colours are not multiplied by their opacity. */
function mapStamp(dots, { start, step, disc: { side, cover }, strength, rgba, at }) {
  const [red, green, blue] = [rgba[at], rgba[at + 1], rgba[at + 2]];
  let to = start;
  for (let k = 0, column = 0; k < cover.length; k += 1, to += 4) {
    const ink = (cover[k] * strength) / 65536;
    if (ink > 0) {
      const under = (dots[to + 3] / 255) * (1 - ink);
      const whole = ink + under;
      dots[to] = (red * ink + dots[to] * under) / whole;
      dots[to + 1] = (green * ink + dots[to + 1] * under) / whole;
      dots[to + 2] = (blue * ink + dots[to + 2] * under) / whole;
      dots[to + 3] = 255 * whole;
    }
    column += 1;
    if (column === side) {
      column = 0;
      to += step;
    }
  }
}
