/** The sets of cells that can be compared, as the server takes them. */

import { categoryRows } from "../selecting";
import * as store from "../store";
import { short } from "../map/labels";

export interface CellSet {
  id: string;
  name: string;
  group: string;
  size: number;
  cells: () => { file_id?: string; job_id?: string; rows?: number[] };
}

/** In the order in which they are likely to be wanted. */
export function setsOf(): CellSet[] {
  const file = store.file.value;
  const found: CellSet[] = [];
  const of = (rows: () => ArrayLike<number>): CellSet["cells"] => () => ({ file_id: file!.id, rows: Array.from(rows()) });
  if (file) {
    const chosen = store.selection.value;
    if (chosen) {
      const { mask, rows } = chosen;
      found.push({ id: "chosen", name: "the chosen cells", group: "Chosen", size: rows.length, cells: of(() => rows) });
      if (rows.length < mask.length) {
        const others = (): number[] => Array.from(mask.keys()).filter((row) => !mask[row]);
        found.push({ id: "others", name: "all others", group: "Chosen", size: mask.length - rows.length, cells: of(others) });
      }
    }
    store.keptSets.value.forEach((each, k) =>
      found.push({ id: `kept-${k}`, name: each.name, group: "Kept sets", size: each.rows.length, cells: of(() => each.rows) }),
    );
    const groups = store.clusters.value;
    for (const row of store.clusterRows.value) {
      const name = row.answer ? `${row.name}, ${short(row.answer)}` : row.name;
      found.push({ id: `cluster-${row.code}`, name, group: "Clusters", size: row.cells, cells: of(() => categoryRows(groups!, row.code)) });
    }
    found.push({ id: "all", name: "all cells of the file", group: "File", size: file.cells, cells: () => ({ file_id: file.id }) });
  }
  for (const each of store.made.value) {
    if (!each.cells) continue;
    found.push({ id: each.job, name: each.title, group: "Written by the model", size: each.cells, cells: () => ({ job_id: each.job }) });
  }
  return found;
}
