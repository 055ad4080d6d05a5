/** A comparison of two sets: a job, whose result is shown and kept over a reload. */

import { follow, resultOf, start } from "../jobs";
import { keep, type KeptCompared } from "../keep";
import { stopper } from "../steps";
import * as store from "../store";
import type { CompareResult } from "../types";
import type { CellSet } from "./sets";

export async function compare(a: CellSet, b: CellSet): Promise<void> {
  const job = await start("/v1/cells/compare", { a: a.cells(), b: b.cells() }, `Comparing ${a.name} with ${b.name}`);
  const compared: KeptCompared = { job: job.id, names: [a.name, b.name] };
  keep({ compared });
  await showCompared(compared);
  store.told.value = `Compared: ${store.compared.value?.result.genes.length} genes.`;
}

export async function showCompared({ job, names }: KeptCompared): Promise<void> {
  await follow(job, `Comparing ${names.join(" with ")}`, undefined, stopper());
  store.compared.value = { job, names, result: await resultOf<CompareResult>(job) };
}

/** After a reload, where the comparison is no longer there. */
export const forgetCompared = (): void => keep({ compared: null });
