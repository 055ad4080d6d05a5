/** What the cells are coloured by; values of a column or a gene are fetched when they are asked for. */

import { get, isStopped } from "./api";
import { unpack } from "./arrays";
import { keep } from "./keep";
import * as store from "./store";
import type { PackedValues, Values } from "./types";

const known = new Map<string, Values>();
let asked = 0;

export function colourBy(colouring: store.Colouring): void {
  store.colouring.value = colouring;
  store.colourError.value = "";
  keep({ colouring });
  if (colouring.by === "obs" || colouring.by === "gene") void fetchValues(colouring.by, colouring.name);
}

async function fetchValues(by: "obs" | "gene", name: string): Promise<void> {
  const file = store.file.value;
  if (!file) return;
  const path = `/v1/files/${file.id}/values?${by}=${encodeURIComponent(name)}`;
  const mine = ++asked;
  store.fetched.value = known.get(path) ?? null;
  if (store.fetched.value) return;
  try {
    const values = unpack(await get<PackedValues>(path));
    if (known.size > 20) known.delete(known.keys().next().value!);
    known.set(path, values);
    if (mine === asked) store.fetched.value = values;
  } catch (error) {
    if (mine === asked && !isStopped(error)) store.colourError.value = error instanceof Error ? error.message : String(error);
  }
}
