/** Steps of the work on a file: each is a job that is kept under the step's name, so that a reload takes it up. */

import { isStopped, ServerError } from "./api";
import { follow, JobFailed, start } from "./jobs";
import { keepStep, work } from "./keep";
import * as store from "./store";
import type { Job } from "./types";

let stop = new AbortController();

/** Aborted when the file is left. */
export const stopper = (): AbortSignal => stop.signal;

export function leave(): void {
  stop.abort();
  stop = new AbortController();
}

/** A job that is kept under a step's name: taken up where it was begun already, else begun. */
export async function step(
  name: string,
  path: string,
  body: unknown,
  title: string,
  signal: AbortSignal,
  onChange?: (job: Job) => void,
): Promise<Job> {
  const known = work.value.steps[name];
  if (known) {
    try {
      return await follow(known, title, onChange, signal);
    } catch (error) {
      const isGone = error instanceof ServerError && error.status === 404;
      if (!isGone) throw error;
    }
  }
  const job = await start(path, body, title);
  if (signal.aborted) throw new DOMException("stopped", "AbortError");
  keepStep(name, job.id);
  return follow(job.id, title, onChange, signal);
}

export function report(error: unknown, what: string): void {
  if (isStopped(error)) return;
  if (error instanceof JobFailed && error.job.state === "cancelled") return;
  store.openError.value = `${what}: ${error instanceof Error ? error.message : String(error)}`;
}
