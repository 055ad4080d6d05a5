/** Which cells are chosen: by drawing on the map, by categories of the legend, or by clusters of the table. */

import { packRows, unpackRows } from "./arrays";
import { keep, type Work } from "./keep";
import * as store from "./store";

export function chooseRows(rows: Int32Array | null, said: string, ticked: store.Selection["ticked"] = null): void {
  const n = store.file.value?.cells ?? 0;
  if (!rows || rows.length === 0 || !n) {
    store.selection.value = null;
    keep({ selection: null });
    return;
  }
  const mask = new Uint8Array(n);
  for (let i = 0; i < rows.length; i++) mask[rows[i]] = 1;
  store.selection.value = { mask, rows, said, ticked };
  store.told.value = `${rows.length.toLocaleString("en")} cells are chosen.`;
  keep({ selection: { bits: packRows(rows, n), said, ticked } });
}

const rowsOf = (mask: Uint8Array): Int32Array => {
  let n = 0;
  for (let i = 0; i < mask.length; i++) n += mask[i];
  const rows = new Int32Array(n);
  for (let i = 0, k = 0; i < mask.length; i++) if (mask[i]) rows[k++] = i;
  return rows;
};

/** Adds to what is chosen, or takes out what is chosen already. */
export function addRows(rows: Int32Array, said: string): void {
  const before = store.selection.value;
  if (!before) return chooseRows(rows, said);
  const mask = before.mask.slice();
  const isIn = rows.length === 1 && mask[rows[0]] === 1;
  for (const row of rows) mask[row] = isIn ? 0 : 1;
  return chooseRows(rowsOf(mask), "cells chosen on the map");
}

export function invert(): void {
  const n = store.file.value?.cells ?? 0;
  const mask = new Uint8Array(n).fill(1);
  for (const row of store.selection.value?.rows ?? []) mask[row] = 0;
  chooseRows(rowsOf(mask), "all but those chosen before");
}

/** Ticks or unticks a category of what is coloured by; all ticked ones together are chosen. */
export function tick(code: number): void {
  const values = store.coloured.value;
  if (values?.kind !== "category") return;
  const before = store.selection.value?.ticked;
  const codes = before?.of === values.name ? before.codes : [];
  tickAll(codes.includes(code) ? codes.filter((each) => each !== code) : [...codes, code]);
}

export function tickAll(codes: number[], values = store.coloured.value): void {
  if (values?.kind !== "category") return;
  const wanted = new Set(codes);
  const mask = new Uint8Array(values.codes.length);
  for (let i = 0; i < mask.length; i++) if (wanted.has(values.codes[i])) mask[i] = 1;
  const names = codes.map((code) => values.categories[code] ?? "none");
  chooseRows(rowsOf(mask), names.length <= 2 ? names.join(" and ") : `${names.length} of ${values.name}`, { of: values.name, codes });
}

export function chooseCluster(code: number): void {
  tickAll([code], store.clusters.value);
}

export function restoreSelection(kept: Work["selection"], n: number): void {
  if (kept) chooseRows(unpackRows(kept.bits).filter((row) => row < n), kept.said, kept.ticked);
}

export function categoryRows(values: { codes: Int32Array }, code: number): Int32Array {
  return rowsOf(Uint8Array.from(values.codes, (each) => (each === code ? 1 : 0)));
}
