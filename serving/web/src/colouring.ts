/** What the cells are coloured by; values of a column or a gene are fetched when they are asked for. */

import { batch } from "@preact/signals";
import { get, isStopped } from "./api";
import { unpack } from "./arrays";
import { keep } from "./keep";
import * as store from "./store";
import type { PackedValues, Values } from "./types";

const MOST_KEPT = 20;
const known = new Map<string, Values>();
let asked = 0;

export function colourBy(colouring: store.Colouring): void {
  const mine = ++asked;
  const isFetched = colouring.by === "obs" || colouring.by === "gene";
  batch(() => {
    store.colouring.value = colouring;
    store.colourError.value = "";
    store.isFetching.value = isFetched;
  });
  keep({ colouring });
  if (!isFetched || !store.file.value) return;
  const path = `/v1/files/${store.file.value.id}/values?${colouring.by}=${encodeURIComponent(colouring.name)}`;
  valuesAt(path).then(
    (values) => {
      if (mine !== asked) return;
      batch(() => {
        store.fetched.value = values;
        store.isFetching.value = false;
      });
    },
    (error: unknown) => {
      if (mine === asked && !isStopped(error)) store.colourError.value = error instanceof Error ? error.message : String(error);
    },
  );
}

async function valuesAt(path: string): Promise<Values> {
  const kept = known.get(path);
  if (kept) return kept;
  const values = unpack(await get<PackedValues>(path));
  if (known.size >= MOST_KEPT) known.delete(known.keys().next().value!);
  known.set(path, values);
  return values;
}
