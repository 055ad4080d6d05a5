/** What of the page's state is drawn: the file's cells in a shuffled order, cells that were written, and lines from where cells moved. */

import { effect, signal } from "@preact/signals";
import { shuffled } from "../arrays";
import * as store from "../store";
import { isDark } from "../theme";
import { centres, gridOf, type Grid } from "./near";
import { categoryColour, paint } from "./palette";
import type { Lines, MapView, Points } from "./view";

export const grid = signal<Grid | null>(null);
/** Shapes and colours of made sets, by their place: diamonds first, so that they are no cells of the file. */
const MADE_SHAPES = [2, 3, 4, 1];
export const madeColour = (place: number): [number, number, number] => categoryColour([4, 5, 3, 1, 2, 6][place % 6]);
export const madeShape = (place: number): number => MADE_SHAPES[place % MADE_SHAPES.length];

/** Draws as the state changes; returns what ends that. */
export function draw(view: MapView): () => void {
  let order: Int32Array = new Int32Array(0);
  let cells: Points | null = null;
  let before: Float32Array | null = null;

  const show = (): void => view.setPoints([...(cells ? [cells] : []), ...madePoints()]);

  const ends = [
    effect(() => {
      const layout = store.layout.value;
      if (!layout) {
        cells = before = null;
        grid.value = null;
        return show();
      }
      const n = layout.coordinates.length / 2;
      const isNew = order.length !== n;
      if (isNew) order = shuffled(n);
      const to = inOrder(layout.coordinates, order);
      const from = before && before.length === to.length ? before : to;
      const look = isNew || !cells ? new Uint8Array(4 * n) : cells.look;
      cells = { id: "cells", from, to, look, lookVersion: (cells?.lookVersion ?? 0) + 1 };
      if (isNew || from === to) paintNow();
      show();
      if (isNew) view.fit();
      else if (from !== to) view.slide(() => undefined);
      before = to;
      grid.value = gridOf(layout.coordinates);
    }),
    effect(() => {
      // read here, so that a change of either paints anew
      void store.coloured.value;
      void store.selection.value;
      void isDark.value;
      if (!cells) return;
      paintNow();
      show();
    }),
    effect(() => {
      void store.made.value;
      void store.layout.value;
      show();
      view.setLines(movedLines());
    }),
    effect(() => view.setDark(isDark.value)),
  ];

  function paintNow(): void {
    if (!cells) return;
    const values = store.coloured.peek();
    const fits = values && (values.kind === "category" ? values.codes : values.values).length === order.length;
    paint(cells.look, order, fits ? values : null, store.selection.peek()?.mask ?? null, isDark.peek());
    cells = { ...cells, lookVersion: cells.lookVersion + 1 };
  }
  return () => ends.forEach((end) => end());
}

function inOrder(coordinates: Float32Array, order: Int32Array): Float32Array {
  const found = new Float32Array(coordinates.length);
  for (let i = 0; i < order.length; i++) {
    found[2 * i] = coordinates[2 * order[i]];
    found[2 * i + 1] = coordinates[2 * order[i] + 1];
  }
  return found;
}

function madePoints(): Points[] {
  const job = store.layout.peek()?.job ?? "";
  return store.made.peek().flatMap((each, place) => {
    const to = each.placed[job];
    if (!to || !each.isShown) return [];
    const look = new Uint8Array(2 * to.length);
    const [r, g, b] = madeColour(place);
    for (let i = 0; i < to.length / 2; i++) look.set([r, g, b, 16 * madeShape(place) + 1], 4 * i);
    return [{ id: `made-${each.job}`, from: to, to, look, lookVersion: 1, isMade: true }];
  });
}

/** For each change: a thin line from each cell to what became of it, and a thick one between the middles. */
function movedLines(): Lines[] {
  const layout = store.layout.peek();
  if (!layout) return [];
  return store.made.peek().flatMap((each, place) => {
    const to = each.placed[layout.job];
    if (!to || !each.isShown || each.kind !== "changed" || !each.from.length) return [];
    const n = to.length / 2;
    const colour = madeColour(place);
    const at = (row: number): [number, number] => [layout.coordinates[2 * row], layout.coordinates[2 * row + 1]];
    const thin = new Float32Array(each.from.length === n ? 4 * n : 0);
    for (let i = 0; i < thin.length / 4; i++) thin.set([...at(each.from[i]), to[2 * i], to[2 * i + 1]], 4 * i);
    const flat = Float32Array.from(each.from.flatMap(at));
    const [x0, y0] = centres(flat, new Int32Array(each.from.length), 1);
    const [x1, y1] = centres(to, new Int32Array(n), 1);
    const thick = arrow(x0, y0, x1, y1);
    return [
      { id: `thin-${each.job}`, ends: thin, colour: [...colour, 110] as Lines["colour"], width: 1 },
      { id: `thick-${each.job}`, ends: thick, colour: [...colour, 255] as Lines["colour"], width: 3 },
    ];
  });
}

function arrow(x0: number, y0: number, x1: number, y1: number): Float32Array {
  const length = Math.hypot(x1 - x0, y1 - y0);
  const head = Math.min(0.05, length / 3);
  const angle = Math.atan2(y1 - y0, x1 - x0);
  const side = (turn: number): number[] => [x1, y1, x1 - head * Math.cos(angle + turn), y1 - head * Math.sin(angle + turn)];
  return Float32Array.from([x0, y0, x1, y1, ...side(0.45), ...side(-0.45)]);
}
