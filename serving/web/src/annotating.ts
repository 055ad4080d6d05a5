/** The model's answers: for some cells of each cluster first, so that each has one at once, then for all, as the pieces of the job are done. */

import { get } from "./api";
import { integers, mergeCategories, mergeNumbers, noCategories, noNumbers, someOfEach, unpack } from "./arrays";
import { cancel, hasEnded, jobs } from "./jobs";
import { forgetSteps, keep, work } from "./keep";
import { report, step, stopper } from "./steps";
import * as store from "./store";
import type { Categories, CellFile, Job, Numbers, PackedValues } from "./types";

const OF_EACH = 8;
/** Cells that are asked about first in all, so that many small clusters do not wait for each other; of each at least two. */
const FIRST = 200;
const LABEL = "scmulan_cell_type";
const PROBABILITY = "scmulan_cell_type_probability";

export async function answer(file: CellFile, signal: AbortSignal): Promise<void> {
  try {
    await annotateFirst(file, signal);
    await annotateAll(file, signal);
  } catch (error) {
    report(error, "The cells could not be annotated");
  }
}

async function annotateFirst(file: CellFile, signal: AbortSignal): Promise<void> {
  prepare(file);
  const clusters = store.clusters.value!;
  const each = Math.max(2, Math.min(OF_EACH, Math.floor(FIRST / clusters.categories.length)));
  const rows = someOfEach(clusters, each);
  const body = { file_id: file.id, model: store.model.value, rows };
  const reader = new Reader(signal);
  const job = await step("first", "/v1/cells/annotate", body, `First answers, ${each} cells of each cluster`, signal, reader.see);
  await reader.finish(job);
  performance.mark("scmulan: every cluster has an answer");
  store.told.value = "Each cluster has a first answer.";
}

async function annotateAll(file: CellFile, signal: AbortSignal): Promise<void> {
  const reader = new Reader(signal);
  const body = { file_id: file.id, model: store.model.value };
  const job = await step("all", "/v1/cells/annotate", body, "Answers for all cells", signal, reader.see);
  await reader.finish(job);
  store.answeredAll.value = true;
  performance.mark("scmulan: all cells have an answer");
  store.told.value = "All cells are annotated.";
}

function prepare(file: CellFile): void {
  store.answers.value ??= noCategories("the model's answer", file.cells);
  store.probabilities.value ??= noNumbers("probability of the answer", file.cells);
}

/** After it was cancelled, or failed. */
export async function annotateAgain(): Promise<void> {
  forgetSteps("first", "all");
  await answer(store.file.value!, stopper());
}

/** Another model or adapter: the answers are asked for again with it. */
export async function changeModel(name: string): Promise<void> {
  store.model.value = name;
  keep({ model: name });
  if (!store.file.value) return;
  for (const key of ["first", "all"]) {
    const id = work.value.steps[key];
    if (id && jobs.value[id] && !hasEnded(jobs.value[id].job)) await cancel(id);
  }
  forgetSteps("first", "all", "embed", "embedding");
  store.answers.value = store.probabilities.value = null;
  store.answeredAll.value = false;
  await answer(store.file.value, stopper());
}

/** Reads the answers of a job piece by piece, one look at a time. */
class Reader {
  private pieces = 0;
  private reading: Promise<void> = Promise.resolve();
  private wanted = 0;

  constructor(private readonly signal: AbortSignal) {}

  readonly see = (job: Job): void => {
    if (job.done <= this.wanted) return;
    this.wanted = job.done;
    this.reading = this.reading.then(() => (this.pieces < this.wanted ? this.read(job.id) : undefined)).catch(() => undefined);
  };

  async finish(job: Job): Promise<void> {
    await this.reading;
    await this.read(job.id);
  }

  private async read(id: string): Promise<void> {
    const at = (column: string): string => `/v1/jobs/${id}/values?obs=${column}&since=${this.pieces}`;
    const [labels, sure] = await Promise.all([get<PackedValues>(at(LABEL), this.signal), get<PackedValues>(at(PROBABILITY), this.signal)]);
    const both = Math.min(labels.pieces ?? 0, sure.pieces ?? 0);
    take(labels, sure);
    this.pieces = Math.max(this.pieces, both);
  }
}

function take(labels: PackedValues, sure: PackedValues): void {
  if (!store.answers.value || !store.probabilities.value || !labels.rows || !sure.rows) return;
  store.answers.value = mergeCategories(store.answers.value, unpack(labels) as Categories, integers(labels.rows));
  store.probabilities.value = mergeNumbers(store.probabilities.value, unpack(sure) as Numbers, integers(sure.rows));
}
