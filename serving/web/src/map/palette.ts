/**
 * Colours. Categories take those of Okabe and Ito, then darker and lighter ones of the same; every eighth category changes its shape too, and
 * labels and the legend name them, so that no colour stands alone. Numbers take viridis.
 */

import type { Values } from "../types";

export type Rgb = [number, number, number];

const OKABE_ITO: Rgb[] = [
  [0, 114, 178],
  [230, 159, 0],
  [0, 158, 115],
  [204, 121, 167],
  [213, 94, 0],
  [86, 180, 233],
  [148, 133, 30],
  [122, 104, 196],
];
/** Anchors of viridis, from low to high. */
const VIRIDIS: Rgb[] = [
  [68, 1, 84],
  [71, 44, 122],
  [59, 81, 139],
  [44, 113, 142],
  [33, 144, 141],
  [39, 173, 129],
  [92, 200, 99],
  [170, 220, 50],
  [253, 231, 37],
];
export const NONE: Rgb = [150, 150, 155];
export const SHAPES = ["circle", "square", "diamond", "triangle", "cross"] as const;

const toward = (colour: Rgb, other: number, share: number): Rgb => colour.map((c) => Math.round(c + (other - c) * share)) as Rgb;

/** In the dark the lighter ones come before the darker ones. */
export function categoryColour(code: number, isDark = false): Rgb {
  if (code < 0) return NONE;
  const base = OKABE_ITO[code % OKABE_ITO.length];
  const round = Math.floor(code / OKABE_ITO.length) % 3;
  if (round === 0) return base;
  return (round === 1) === isDark ? toward(base, 255, 0.4) : toward(base, 0, 0.35);
}

export const categoryShape = (code: number): number => (code < 0 ? 0 : Math.floor(code / OKABE_ITO.length) % SHAPES.length);

export function numberColour(share: number): Rgb {
  const at = Math.max(0, Math.min(1, share)) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(at), VIRIDIS.length - 2);
  const rest = at - low;
  return VIRIDIS[low].map((c, k) => Math.round(c + (VIRIDIS[low + 1][k] - c) * rest)) as Rgb;
}

export const css = ([r, g, b]: Rgb): string => `rgb(${r} ${g} ${b})`;

/** From the least to the 99th percentile, or to the greatest where that is the same. */
export function rangeOf(values: Float32Array): [number, number] {
  const step = Math.max(1, Math.floor(values.length / 20_000));
  const some: number[] = [];
  let most = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (Number.isNaN(value)) continue;
    if (value > most) most = value;
    if (i % step === 0) some.push(value);
  }
  if (most === -Infinity) return [0, 1];
  some.sort((a, b) => a - b);
  const low = Math.min(some[0] ?? most, most);
  const high = some[Math.floor(0.99 * (some.length - 1))] ?? most;
  return [low, high > low ? high : most > low ? most : low + 1];
}

const TABLE = Array.from({ length: 256 }, (_, i) => numberColour(i / 255));

/** Writes the look of every point: colours and shapes of the values; chosen ones stand out. */
export function paint(look: Uint8Array, order: Int32Array, values: Values | null, chosen: Uint8Array | null, isDark = false): void {
  const codes = values?.kind === "category" ? values.codes : null;
  const numbers = values?.kind === "number" ? values.values : null;
  const [low, high] = numbers ? rangeOf(numbers) : [0, 1];
  const n = values?.kind === "category" ? values.categories.length : 0;
  const colours = Array.from({ length: n + 1 }, (_, k) => categoryColour(k - 1, isDark));
  const shapes = Array.from({ length: n + 1 }, (_, k) => 16 * categoryShape(k - 1));
  for (let i = 0; i < order.length; i++) {
    const row = order[i];
    const state = chosen === null ? 1 : chosen[row] ? 2 : 0;
    let colour = NONE;
    let shape = 0;
    if (codes) {
      const code = codes[row];
      colour = colours[code + 1];
      shape = shapes[code + 1];
    } else if (numbers && !Number.isNaN(numbers[row])) {
      colour = TABLE[Math.max(0, Math.min(255, Math.round((255 * (numbers[row] - low)) / (high - low))))];
    }
    look[4 * i] = colour[0];
    look[4 * i + 1] = colour[1];
    look[4 * i + 2] = colour[2];
    look[4 * i + 3] = shape + state;
  }
}
