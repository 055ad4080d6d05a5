/** What is told of the cell under the pointer. */

import { signal } from "@preact/signals";
import { percent } from "../words";
import * as store from "../store";
import type { Values } from "../types";

export const hovered = signal<{ row: number; x: number; y: number } | null>(null);

const said = (values: Values | null, row: number): string => {
  if (!values) return "";
  if (values.kind === "category") return values.categories[values.codes[row]] ?? "";
  const value = values.values[row];
  return Number.isNaN(value) ? "" : value.toPrecision(3);
};

export function Hover() {
  const at = hovered.value;
  if (!at) return null;
  const { row } = at;
  const answer = said(store.answers.value, row);
  const sure = store.probabilities.value?.values[row] ?? NaN;
  const coloured = store.colouring.value.by === "obs" || store.colouring.value.by === "gene" ? store.coloured.value : null;
  return (
    <dl class="hover" style={{ left: `${at.x}px`, top: `${at.y}px` }} data-left={at.x > 260} aria-hidden="true">
      <dt>cell {(row + 1).toLocaleString("en")}</dt>
      <dd>{said(store.clusters.value, row)}</dd>
      {coloured && <dt>{coloured.name}</dt>}
      {coloured && <dd>{said(coloured, row) || "none"}</dd>}
      <dt>answer</dt>
      <dd>{answer ? `${answer}${Number.isNaN(sure) ? "" : `, ${percent(sure)}`}` : "not yet"}</dd>
    </dl>
  );
}
