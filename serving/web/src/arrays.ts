/** Arrays as the server packs them: base64 of little-endian numbers. */

import type { Categories, Numbers, PackedArray, PackedValues, Values } from "./types";

function bytesOf(text: string): ArrayBuffer {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes.buffer;
}

export function floats(packed: PackedArray): Float32Array {
  const buffer = bytesOf(packed.data);
  return packed.dtype === "float32" ? new Float32Array(buffer) : Float32Array.from(new Int32Array(buffer));
}

export function integers(packed: PackedArray): Int32Array {
  const buffer = bytesOf(packed.data);
  return packed.dtype === "int32" ? new Int32Array(buffer) : Int32Array.from(new Float32Array(buffer));
}

export function unpack(packed: PackedValues): Values {
  if (packed.kind === "category") {
    return { name: packed.name, kind: "category", categories: packed.categories ?? [], codes: integers(packed.codes!) };
  }
  return { name: packed.name, kind: "number", values: floats(packed.values!) };
}

export function noCategories(name: string, n: number): Categories {
  return { name, kind: "category", categories: [], codes: new Int32Array(n).fill(-1) };
}

export function noNumbers(name: string, n: number): Numbers {
  return { name, kind: "number", values: new Float32Array(n).fill(NaN) };
}

/** Some of the labels, put at their rows; the categories are joined by name. A new object, so that whoever looks sees the change. */
export function mergeCategories(into: Categories, part: Categories, rows: Int32Array): Categories {
  const categories = [...into.categories];
  const place = new Map(categories.map((name, code) => [name, code]));
  const codes = part.categories.map((name) => {
    const known = place.get(name);
    if (known !== undefined) return known;
    place.set(name, categories.length);
    return categories.push(name) - 1;
  });
  for (let i = 0; i < rows.length; i++) {
    const code = part.codes[i];
    into.codes[rows[i]] = code < 0 ? -1 : codes[code];
  }
  return { ...into, categories };
}

export function mergeNumbers(into: Numbers, part: Numbers, rows: Int32Array): Numbers {
  for (let i = 0; i < rows.length; i++) into.values[rows[i]] = part.values[i];
  return { ...into };
}

/** A set of rows as text for the browser's storage: one bit a cell. */
export function packRows(rows: ArrayLike<number>, n: number): string {
  const bits = new Uint8Array(Math.ceil(n / 8));
  for (let i = 0; i < rows.length; i++) bits[rows[i] >> 3] |= 1 << (rows[i] & 7);
  let text = "";
  for (let i = 0; i < bits.length; i += 8192) text += String.fromCharCode(...bits.subarray(i, i + 8192));
  return btoa(text);
}

export function unpackRows(text: string): Int32Array {
  const bits = new Uint8Array(bytesOf(text));
  const rows: number[] = [];
  for (let i = 0; i < bits.length * 8; i++) if (bits[i >> 3] & (1 << (i & 7))) rows.push(i);
  return Int32Array.from(rows);
}

/** Numbers in [0, 1) that are the same each time, for shuffling and for drawing cells (mulberry32). */
export function draws(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function shuffled(n: number, seed = 0): Int32Array {
  const order = new Int32Array(n);
  for (let i = 0; i < n; i++) order[i] = i;
  const draw = draws(seed);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(draw() * (i + 1));
    const kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
  return order;
}

/** At most so many of the rows, spread evenly over them. */
export function thin(rows: ArrayLike<number>, most: number): number[] {
  if (rows.length <= most) return Array.from(rows);
  return Array.from({ length: most }, (_, i) => rows[Math.floor((i * rows.length) / most)]);
}

/** The first rows of each cluster, in an even order: `each` of every one. */
export function someOfEach(clusters: Categories, each: number): number[] {
  const taken = new Int32Array(clusters.categories.length);
  const rows: number[] = [];
  for (const row of shuffled(clusters.codes.length, 7)) {
    const code = clusters.codes[row];
    if (code >= 0 && taken[code] < each) {
      taken[code]++;
      rows.push(row);
    }
  }
  return rows.sort((a, b) => a - b);
}
