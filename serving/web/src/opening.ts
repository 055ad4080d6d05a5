/**
 * From a file to a map: the doctor's verdict with the upload, PCA at once, then clusters, then UMAP while some cells of each cluster are asked about first and
 * the rest behind them. Every step keeps its job's id, so that a reload runs through the same steps and takes them up where they are.
 */

import { answer } from "./annotating";
import { get, isStopped, post, ServerError, upload } from "./api";
import { forgetCompared, showCompared } from "./compare/comparing";
import { floats, integers } from "./arrays";
import { restoreThread } from "./chat/asking";
import { colourBy } from "./colouring";
import { jobs, resultOf } from "./jobs";
import { forgetWork, keep, lastWork, work, workOfTab, type Work } from "./keep";
import { fitted } from "./map/near";
import { placeAll, restoreMade } from "./making";
import { chooseRows, restoreSelection } from "./selecting";
import { leave, report, step, stopper } from "./steps";
import * as store from "./store";
import type { About, CellFile, ClusterResult, Job, MapResult } from "./types";

let sending: AbortController | null = null;

export async function begin(): Promise<void> {
  const about = await get<About>("/v1/about");
  store.about.value = about;
  store.model.value = about.models[0]?.id ?? "";
  const kept = workOfTab();
  if (kept) await resume(kept);
}

/** Takes up work whose file is still there. */
export async function resume(kept: Work = lastWork()!): Promise<void> {
  work.value = kept;
  if (store.about.value?.models.some((each) => each.id === kept.model)) store.model.value = kept.model;
  restoreThread(kept.thread);
  store.panel.value = kept.panel as typeof store.panel.value;
  if (!kept.file) return;
  try {
    const file = await get<CellFile>(`/v1/files/${kept.file}`);
    store.file.value = file;
    colourBy(kept.colouring);
    await run(file);
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    store.openError.value = `The file of before, ${kept.filename}, is no longer on the server (${error.message}). Open it again.`;
    forgetWork();
  }
}

export async function openFile(given: File): Promise<void> {
  const most = store.about.value?.limits.file_bytes;
  if (most && given.size > most) {
    const megabytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20).toLocaleString("en")} MB`;
    store.openError.value =
      `${given.name} has ${megabytes(given.size)}; this server takes ${megabytes(most)} at most. ` +
      "Keep fewer cells or only the counts, or use the command line: scmulan annotate takes files of any size.";
    return;
  }
  await opened(given.name, "", (stop) => upload<CellFile>(given, (share) => (store.opening.value = { name: given.name, share }), stop));
}

export async function openExample(name: string): Promise<void> {
  const title = store.about.value?.examples.find((each) => each.name === name)?.title ?? name;
  await opened(title, name, (stop) => post<CellFile>(`/v1/examples/${name}`, undefined, stop));
}

export const cancelOpening = (): void => sending?.abort();

async function opened(name: string, example: string, load: (stop: AbortSignal) => Promise<CellFile>): Promise<void> {
  sending?.abort();
  sending = new AbortController();
  store.openError.value = "";
  store.opening.value = { name, share: 0 };
  try {
    const file = await load(sending.signal);
    close();
    keep({ file: file.id, filename: file.filename, example, model: store.model.value, steps: {} });
    store.opening.value = null;
    store.told.value = `${file.filename} is open: ${file.cells} cells.`;
    await run(file);
  } catch (error) {
    if (!isStopped(error)) store.openError.value = error instanceof Error ? error.message : String(error);
  } finally {
    store.opening.value = null;
  }
}

/** Leaves the file; what runs on the server goes on. */
export function close(): void {
  leave();
  forgetWork();
  jobs.value = {};
  store.file.value = null;
  store.layouts.value = {};
  store.layoutName.value = "pca";
  store.clusters.value = store.answers.value = store.probabilities.value = null;
  store.answeredAll.value = false;
  store.colouring.value = { by: "cluster" };
  store.fetched.value = null;
  store.made.value = [];
  store.thread.value = [];
  store.keptSets.value = [];
  store.compared.value = null;
  chooseRows(null, "");
}

async function run(file: CellFile): Promise<void> {
  const signal = stopper();
  store.file.value = file;
  store.example.value = work.value.example;
  try {
    if (work.value.layout === "umap" && work.value.steps.umap) await umap(file, signal); // of before: no detour by PCA
    const pca = await step("pca", "/v1/cells/map", { file_id: file.id, layout: "pca", seed: 0 }, "First map", signal);
    await takeMap("pca", pca, signal);
    restoreSelection(work.value.selection, file.cells);
    store.keptSets.value = work.value.keptSets;
    void restoreMade(work.value.made);
    if (work.value.compared) void showCompared(work.value.compared).catch(forgetCompared);
    await takeClusters(await step("cluster", "/v1/cells/cluster", { file_id: file.id, seed: 0 }, "Clusters", signal), signal);
    await Promise.all([laterMaps(file, signal), answer(file, signal)]);
  } catch (error) {
    report(error, "The map could not be made");
  }
}

async function laterMaps(file: CellFile, signal: AbortSignal): Promise<void> {
  const isAsked = work.value.steps.umap !== undefined;
  try {
    if (!store.layouts.value.umap) await umap(file, signal, !isAsked || work.value.layout !== "pca");
    if (work.value.steps.embed) await mapEmbedding();
  } catch (error) {
    report(error, "UMAP could not be made");
  }
}

async function umap(file: CellFile, signal: AbortSignal, isShown = true): Promise<void> {
  await takeMap("umap", await step("umap", "/v1/cells/map", { file_id: file.id, layout: "umap", seed: 0 }, "UMAP", signal), signal);
  if (isShown && store.layoutName.value !== "embedding") show("umap");
}

/** The model's own embedding of every cell, and a map of it. */
export async function mapEmbedding(): Promise<void> {
  const file = store.file.value!;
  const signal = stopper();
  try {
    const embed = await step("embed", "/v1/cells/embed", { file_id: file.id, model: store.model.value }, "Embedding", signal);
    const body = { file_id: file.id, layout: "umap", seed: 0, embedding: embed.id };
    await takeMap("embedding", await step("embedding", "/v1/cells/map", body, "Map of the embedding", signal), signal);
    show("embedding");
  } catch (error) {
    report(error, "The map of the embedding could not be made");
  }
}

export function show(name: store.LayoutName): void {
  if (!store.layouts.value[name]) return;
  store.layoutName.value = name;
  keep({ layout: name });
  placeAll();
}

async function takeMap(name: store.LayoutName, job: Job, signal: AbortSignal): Promise<void> {
  const result = await resultOf<MapResult>(job.id, signal);
  const { coordinates, fit } = fitted(floats(result.coordinates));
  store.layouts.value = { ...store.layouts.value, [name]: { job: job.id, coordinates, fit } };
  performance.mark(`scmulan: ${name} is there`);
  store.told.value = name === "pca" ? "A first map is there; UMAP is on its way." : "The map has changed to a new layout.";
}

async function takeClusters(job: Job, signal: AbortSignal): Promise<void> {
  const { clusters } = await resultOf<ClusterResult>(job.id, signal);
  const categories = (clusters.categories ?? []).map((each) => `cluster ${each}`);
  store.clusters.value = { name: "cluster", kind: "category", categories, codes: integers(clusters.codes!) };
  performance.mark("scmulan: clusters are there");
  store.told.value = `There are ${categories.length} clusters.`;
}
