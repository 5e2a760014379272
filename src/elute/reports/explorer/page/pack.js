// The data of the page: what is small at once, the rest in blocks that are inflated when they are first asked for.
//
// A block is a header of JSON and columns of typed arrays (docs/formats/explorer.md). Nothing here makes HTML.

const INFO = JSON.parse(document.getElementById("info").textContent);
const PACK_TYPES = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i32: Int32Array, f32: Float32Array };
const PACK_NOTHING = 0xffffffff;
const PACK_PATIENCE = 10; // ms until it is looked again whether a block has come
const packNames = new Set(INFO.blocks ?? []);
const packOpened = new Map(); // name: promise of the block

/** Whether the page carries a block of this name; it may be further down, where the browser has not come to. */
function hasBlock(name) {
  return packNames.has(name) || document.getElementById(`block-${name}`) !== null;
}

/** The element of a block, once it is there as a whole; null where it never comes. */
async function packElement(name) {
  for (;;) {
    const element = document.getElementById(`block-${name}`);
    const read = document.readyState !== "loading";
    if (read || (element !== null && element.nextSibling !== null)) return element;
    await new Promise((done) => setTimeout(done, PACK_PATIENCE));
  }
}

/** The block of this name, inflated once; one plain sentence where it is not there or damaged. */
async function openBlock(name) {
  if (!packOpened.has(name)) packOpened.set(name, packRead(name));
  return packOpened.get(name);
}

async function packRead(name) {
  const element = await packElement(name);
  if (element === null) throw new Error(`This page does not hold “${name}”.`);
  let block;
  try {
    const stream = new Blob([packBytes(element.textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
    block = new Block(name, await new Response(stream).arrayBuffer());
  } catch {
    throw new Error(`The part “${name}” of this page is damaged: write the page again.`);
  }
  const needed = new Set(block.all().map((column) => column.dictionary).filter(Boolean));
  const words = new Map();
  for (const other of needed) words.set(other, (await openBlock(other)).column("word"));
  for (const column of block.all()) if (column.dictionary) column.source = words.get(column.dictionary);
  for (const column of block.all()) if (column.filled) packFill(column, block, (await openBlock(column.filled.block)).column(column.filled.list));
  return block;
}

/** Words that stand in a list of another block already, at the rank of their row: they are not written twice. */
function packFill(column, block, list) {
  const { first, from, rank } = column.filled;
  const [starts, ranks] = [block.column(from), block.column(rank)];
  const codes = Uint32Array.from(column.codes());
  for (let i = 0; i + 1 < starts.length; i += 1) {
    for (let k = starts.at(i); k < starts.at(i + 1); k += 1) {
      if (codes[k] !== column.none) continue;
      const at = list.range(first + i)[0] + (ranks.at(k) ?? Infinity) - 1;
      codes[k] = at < list.range(first + i)[1] ? list.of.codes()[at] : PACK_NOTHING;
    }
  }
  [column.stored, column.none] = [codes, PACK_NOTHING];
}

function packBytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** A table: columns by name. */
class Block {
  constructor(name, buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const head = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 4, length)));
    const start = Math.ceil((4 + length) / 8) * 8;
    this.name = name;
    this.rows = head.rows;
    this.names = Object.keys(head.columns);
    this.columns = new Map();
    for (const [key, spec] of Object.entries(head.columns)) {
      this.columns.set(key, packColumn(spec, buffer, { start, rows: spec.rows ?? head.rows }));
    }
  }

  has(name) {
    return this.columns.has(name);
  }

  /** The column of this name; null where the block has none. */
  column(name) {
    return this.columns.get(name) ?? null;
  }

  /** Every column, those inside lists among them. */
  all() {
    return [...this.columns.values()].flatMap((column) => (column.kind === "list" ? [column, column.of] : [column]));
  }
}

function packColumn(spec, buffer, { start, rows }) {
  const view = (type, at, count) => packView(PACK_TYPES[type], new Uint8Array(buffer, start + at), count);
  if (spec.kind === "number") return new NumberColumn(spec, view(spec.type, spec.at, rows));
  if (spec.kind === "bool") return new BoolColumn(view("u8", spec.at, rows));
  if (spec.kind === "text") return new TextColumn(spec, { view, rows });
  const offsets = packSums(view(spec.type, spec.at, rows), 1);
  if (offsets[rows] !== spec.of.rows) throw new Error("a list without its values");
  return new ListColumn(offsets, packColumn(spec.of, buffer, { start, rows: spec.of.rows }));
}

/** Numbers whose first bytes lie before all second ones: what is alike stands together, and takes less room. */
function packView(Type, bytes, count) {
  const size = Type.BYTES_PER_ELEMENT;
  if (!(count * size <= bytes.length)) throw new Error("a column beyond the end");
  if (size === 1) return bytes.subarray(0, count);
  const joined = new Uint8Array(count * size);
  for (let plane = 0; plane < size; plane += 1) {
    for (let i = 0, from = plane * count, to = plane; i < count; i += 1, from += 1, to += size) joined[to] = bytes[from];
  }
  return new Type(joined.buffer);
}

/** Running sums, after so many zeros. */
function packSums(values, zeros) {
  const sums = new Uint32Array(values.length + zeros);
  for (let i = 0, sum = 0; i < values.length; i += 1) sums[i + zeros] = sum += values[i];
  return sums;
}

/** Numbers: `stored` as they lie in the block, `at(i)` one of them or null, `numbers()` all, with NaN for null. */
class NumberColumn {
  constructor(spec, stored) {
    this.kind = "number";
    this.stored = spec.sum ? packSums(stored, 0) : stored;
    this.length = stored.length;
    this.none = spec.null ?? null;
    this.scale = spec.scale ?? null;
    this.zero = spec.zero ?? 0;
    this.log = spec.log === true;
    this.float = spec.type === "f32";
    this.cached = null;
  }

  at(i) {
    const stored = this.stored[i];
    if (stored === undefined || stored === this.none || Number.isNaN(stored)) return null;
    if (this.scale === null) return stored;
    if (this.log) return stored === 0 ? 0 : Math.exp(this.zero + this.scale * stored);
    return this.zero + this.scale * stored;
  }

  /** The numbers as they lie in the block. */
  get raw() {
    return this.stored;
  }

  /** All values with NaN for null; logs are so small at times that they need the longer kind of float. */
  numbers() {
    if (this.cached !== null) return this.cached;
    if (this.float && this.scale === null) return (this.cached = this.stored);
    const Type = this.log ? Float64Array : Float32Array;
    const values = new Type(this.length);
    for (let i = 0; i < values.length; i += 1) values[i] = this.at(i) ?? NaN;
    return (this.cached = values);
  }
}

/** Yes, no, or null. */
class BoolColumn {
  constructor(stored) {
    this.kind = "bool";
    this.stored = stored;
    this.length = stored.length;
  }

  at(i) {
    return this.stored[i] === 1 ? true : this.stored[i] === 0 ? false : null;
  }
}

/** Texts: `codes()` are places in `words`; `none` is the code of null, or null where no row is. */
class TextColumn {
  constructor(spec, { view, rows }) {
    this.kind = "text";
    this.length = rows;
    this.dictionary = spec.dictionary;
    this.source = null; // the column of another block whose words these are
    this.none = spec.null;
    this.filled = spec.filled ?? null; // where words are that this column does not repeat
    this.stored = spec.codes === "row" ? null : view(spec.codes, spec.at, rows);
    this.own = spec.dictionary === null ? { ends: view("u32", spec.offsets, spec.entries + 1), bytes: view("u8", spec.bytes, spec.length) } : null;
    this.cached = null;
    this.small = null;
  }

  /** All words of the dictionary. */
  get words() {
    if (this.own === null) return this.source.words;
    if (this.cached === null) {
      const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.own.bytes);
      this.cached = Array.from({ length: this.own.ends.length - 1 }, (_, i) => text.slice(this.own.ends[i], this.own.ends[i + 1]));
    }
    return this.cached;
  }

  /** The words in small letters, for a search. */
  get lower() {
    if (this.own === null) return this.source.lower;
    return (this.small ??= this.words.map((word) => word.toLowerCase()));
  }

  codes() {
    if (this.stored === null) this.stored = Uint32Array.from({ length: this.length }, (_, i) => i);
    return this.stored;
  }

  at(i) {
    const code = this.stored === null ? i : this.stored[i];
    return code === this.none ? null : (this.words[code] ?? null);
  }
}

/** A list of values a row: those of row i are `of.at(k)` for k from `range(i)[0]` up to, not with, `range(i)[1]`. */
class ListColumn {
  constructor(offsets, of) {
    this.kind = "list";
    this.offsets = offsets;
    this.of = of;
    this.length = offsets.length - 1;
  }

  range(i) {
    return [this.offsets[i], this.offsets[i + 1]];
  }

  at(i) {
    const [from, to] = this.range(i);
    return Array.from({ length: to - from }, (_, k) => this.of.at(from + k));
  }

  /** The places of row i where they are kept as the first and then differences, as whole numbers that ascend. */
  places(i) {
    const [from, to] = this.range(i);
    const found = new Uint32Array(to - from);
    let sum = 0;
    for (let k = from; k < to; k += 1) found[k - from] = sum += this.of.stored[k];
    return found;
  }
}
