/** Which cell is nearest to a place, and which lie within a drawn line: over a grid of typed arrays, so that 200,000 cells take no time. */

export interface Grid {
  coordinates: Float32Array;
  side: number;
  /** First place in `rows` of each square; one more at the end. */
  starts: Int32Array;
  rows: Int32Array;
}

const HALF = 1.05;

const square = (value: number, side: number): number =>
  Math.max(0, Math.min(side - 1, Math.floor(((value + HALF) / (2 * HALF)) * side)));

/** A grid over coordinates in [-1, 1]. */
export function gridOf(coordinates: Float32Array): Grid {
  const n = coordinates.length / 2;
  const side = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(n / 4))));
  const starts = new Int32Array(side * side + 1);
  const squares = new Int32Array(n);
  for (let i = 0; i < n; i++) {
    const s = square(coordinates[2 * i + 1], side) * side + square(coordinates[2 * i], side);
    squares[i] = s;
    starts[s + 1]++;
  }
  for (let s = 0; s < side * side; s++) starts[s + 1] += starts[s];
  const next = starts.slice(0, -1);
  const rows = new Int32Array(n);
  for (let i = 0; i < n; i++) rows[next[squares[i]]++] = i;
  return { coordinates, side, starts, rows };
}

/** The row nearest to a place within a distance, or -1. */
export function nearest(grid: Grid, x: number, y: number, within: number): number {
  const { coordinates, side, starts, rows } = grid;
  let best = -1;
  let least = within * within;
  for (let r = square(y - within, side); r <= square(y + within, side); r++) {
    for (let c = square(x - within, side); c <= square(x + within, side); c++) {
      for (let i = starts[r * side + c]; i < starts[r * side + c + 1]; i++) {
        const row = rows[i];
        const dx = coordinates[2 * row] - x;
        const dy = coordinates[2 * row + 1] - y;
        const d = dx * dx + dy * dy;
        if (d <= least) {
          least = d;
          best = row;
        }
      }
    }
  }
  return best;
}

/** Rows inside a polygon (x0, y0, x1, y1, ...), by the even-odd rule; only cells within its box are looked at. */
export function within(coordinates: Float32Array, polygon: ArrayLike<number>): Int32Array {
  const corners = polygon.length / 2;
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let k = 0; k < corners; k++) {
    x0 = Math.min(x0, polygon[2 * k]);
    x1 = Math.max(x1, polygon[2 * k]);
    y0 = Math.min(y0, polygon[2 * k + 1]);
    y1 = Math.max(y1, polygon[2 * k + 1]);
  }
  const found: number[] = [];
  for (let i = 0; i < coordinates.length / 2; i++) {
    const x = coordinates[2 * i];
    const y = coordinates[2 * i + 1];
    if (x < x0 || x > x1 || y < y0 || y > y1) continue;
    let inside = false;
    for (let k = 0, before = corners - 1; k < corners; before = k++) {
      const ya = polygon[2 * k + 1];
      const yb = polygon[2 * before + 1];
      if (ya > y !== yb > y && x < ((polygon[2 * before] - polygon[2 * k]) * (y - ya)) / (yb - ya) + polygon[2 * k]) inside = !inside;
    }
    if (inside) found.push(i);
  }
  return Int32Array.from(found);
}

/** Coordinates brought into [-1, 1] with their shape kept, and how, so that other cells can be put among them. */
export function fitted(coordinates: Float32Array): { coordinates: Float32Array; fit: Fit } {
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < coordinates.length; i += 2) {
    x0 = Math.min(x0, coordinates[i]);
    x1 = Math.max(x1, coordinates[i]);
    y0 = Math.min(y0, coordinates[i + 1]);
    y1 = Math.max(y1, coordinates[i + 1]);
  }
  const scale = 2 / Math.max(x1 - x0, y1 - y0, 1e-9);
  const fit: Fit = { scale, x: (x0 + x1) / 2, y: (y0 + y1) / 2 };
  return { coordinates: place(coordinates, fit), fit };
}

export interface Fit {
  scale: number;
  x: number;
  y: number;
}

export function place(coordinates: Float32Array, fit: Fit): Float32Array {
  const found = new Float32Array(coordinates.length);
  for (let i = 0; i < coordinates.length; i += 2) {
    found[i] = (coordinates[i] - fit.x) * fit.scale;
    found[i + 1] = (coordinates[i + 1] - fit.y) * fit.scale;
  }
  return found;
}

/** The cell in the middle of each category (the median of its x and of its y); NaN where it has none. */
export function centres(coordinates: Float32Array, codes: Int32Array, n: number): Float32Array {
  const xs: number[][] = Array.from({ length: n }, () => []);
  const ys: number[][] = Array.from({ length: n }, () => []);
  const step = Math.max(1, Math.floor(codes.length / 50_000));
  for (let i = 0; i < codes.length; i += step) {
    if (codes[i] < 0) continue;
    xs[codes[i]].push(coordinates[2 * i]);
    ys[codes[i]].push(coordinates[2 * i + 1]);
  }
  const middle = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? NaN;
  return Float32Array.from({ length: 2 * n }, (_, k) => middle(k % 2 ? ys[k >> 1] : xs[k >> 1]));
}
