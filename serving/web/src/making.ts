/** Cells that the model writes, of a kind or after a change, and where they land on the map. */

import { get, ServerError } from "./api";
import { floats } from "./arrays";
import { follow, resultOf, start } from "./jobs";
import { keep, type KeptMade } from "./keep";
import { place } from "./map/near";
import { report, stopper } from "./steps";
import * as store from "./store";
import type { Job, PackedArray } from "./types";

/** Begins a job that writes cells, and puts them on the map when it is done. */
export async function make(path: string, body: unknown, title: string, kind: store.Made["kind"], from: number[] = []): Promise<Job> {
  const job = await start(path, body, title);
  keepMade([...store.made.value, { job: job.id, kind, title, from, cells: 0, isShown: true, placed: {}, places: {} }]);
  return land(job.id, title);
}

/** A job of cells that are done already, as a chat's. */
export async function adopt(id: string, title: string, kind: store.Made["kind"], from: number[] = []): Promise<void> {
  if (store.made.value.some((each) => each.job === id)) return;
  keepMade([...store.made.value, { job: id, kind, title, from, cells: 0, isShown: true, placed: {}, places: {} }]);
  await land(id, title);
}

async function land(id: string, title: string): Promise<Job> {
  const signal = stopper();
  const job = await follow(id, title, undefined, signal);
  change(id, { cells: Number(job.summary.cells ?? job.cells) || 1 }); // a chat's job tells no number; placing does
  await placeOn(id);
  return job;
}

const placing = new Set<string>();

/** Puts cells of a job on the map that is shown now. */
export async function placeOn(id: string): Promise<void> {
  const layout = store.layout.value;
  const known = store.made.value.find((each) => each.job === id);
  if (!layout || !known || known.placed[layout.job]) return;
  if (!known.cells || placing.has(`${id} ${layout.job}`)) return;
  placing.add(`${id} ${layout.job}`);
  try {
    const title = `Placing ${known.title} on the map`;
    const began = known.places[layout.job] ?? (await start("/v1/cells/place", { map_id: layout.job, job_id: id }, title)).id;
    change(id, { places: { ...known.places, [layout.job]: began } });
    await follow(began, title, undefined, stopper());
    const result = await resultOf<{ coordinates: PackedArray }>(began);
    const coordinates = place(floats(result.coordinates), layout.fit);
    const now = store.made.value.find((each) => each.job === id);
    if (now) change(id, { placed: { ...now.placed, [layout.job]: coordinates }, cells: coordinates.length / 2 });
    store.told.value = `${known.title}: ${coordinates.length / 2} cells are on the map.`;
  } catch (error) {
    report(error, `${known.title} could not be put on the map`);
  } finally {
    placing.delete(`${id} ${layout.job}`);
  }
}

/** After another map is shown. */
export function placeAll(): void {
  for (const each of store.made.value) void placeOn(each.job);
}

export function change(id: string, what: Partial<store.Made>): void {
  keepMade(store.made.value.map((each) => (each.job === id ? { ...each, ...what } : each)));
}

export function remove(id: string): void {
  keepMade(store.made.value.filter((each) => each.job !== id));
}

function keepMade(made: store.Made[]): void {
  store.made.value = made;
  keep({ made: made.map(({ job, kind, title, from, isShown, places }) => ({ job, kind, title, from, isShown, places })) });
}

export async function restoreMade(kept: KeptMade[]): Promise<void> {
  store.made.value = kept.map((each) => ({ ...each, cells: 0, placed: {} }));
  for (const each of kept) {
    try {
      await get<Job>(`/v1/jobs/${each.job}`);
      await land(each.job, each.title);
    } catch (error) {
      if (error instanceof ServerError && error.status === 404) remove(each.job);
      else report(error, `${each.title} could not be made`);
    }
  }
}
