/**
 * Jobs of the server, followed as they go on: by server-sent events over fetch, so that the key goes along; some at once, the others are asked
 * about each second, because a browser opens six connections to a server and no more. A stream that breaks is opened again.
 */

import { signal } from "@preact/signals";
import { backoff, call, connection, get, isStopped, pause, post } from "./api";
import type { Job } from "./types";

const STREAMS = 2;
let streams = 0;

/** Jobs that this page began or follows, by id, newest last; `title` is what the user calls it. */
export const jobs = signal<Record<string, { title: string; job: Job; since: number }>>({});

export const hasEnded = (job: Job): boolean => job.state === "done" || job.state === "failed" || job.state === "cancelled";

export class JobFailed extends Error {
  constructor(readonly job: Job) {
    super(job.state === "cancelled" ? "cancelled" : job.message || "it failed without saying why");
  }
}

function note(title: string, job: Job): void {
  const known = jobs.value[job.id];
  jobs.value = { ...jobs.value, [job.id]: { title, job, since: known?.since ?? Date.now() } };
}

export function forget(id: string): void {
  jobs.value = Object.fromEntries(Object.entries(jobs.value).filter(([each]) => each !== id));
}

export async function start(path: string, body: unknown, title: string): Promise<Job> {
  const job = await post<Job>(path, body);
  note(title, job);
  return job;
}

export async function cancel(id: string): Promise<void> {
  const job = await post<Job>(`/v1/jobs/${id}/cancel`, undefined);
  note(jobs.value[id]?.title ?? job.task, job);
}

/** Follows a job until it is done, which is returned; JobFailed where it ends otherwise. */
export async function follow(id: string, title: string, onChange?: (job: Job) => void, stop?: AbortSignal): Promise<Job> {
  let last: Job | undefined;
  const see = (job: Job): void => {
    last = job;
    note(title, job);
    onChange?.(job);
  };
  for (let attempt = 0; ; ) {
    try {
      if (streams < STREAMS) {
        streams++;
        try {
          await readEvents(id, see, () => (attempt = 0), stop);
        } finally {
          streams--;
        }
      } else {
        see(await get<Job>(`/v1/jobs/${id}`, stop));
        if (last && !hasEnded(last)) await pause(1000, stop);
      }
    } catch (error) {
      if (isStopped(error) || !(error instanceof TypeError)) throw error;
      connection.value = "The connection was lost. Trying again; the work goes on where it was.";
      await pause(backoff(attempt++), stop);
    }
    if (last?.state === "done") return last;
    if (last && hasEnded(last)) throw new JobFailed(last);
  }
}

async function readEvents(id: string, see: (job: Job) => void, onAlive: () => void, stop?: AbortSignal): Promise<void> {
  const response = await call(`/v1/jobs/${id}/events`, { stop });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  try {
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      onAlive();
      const { events, rest } = splitEvents(text + value);
      text = rest;
      // only the newest counts: each holds the whole job
      if (events.length) see(events[events.length - 1]);
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
  if (!stop?.aborted) await pause(200, stop);
}

/** Jobs in a stream's text, and the rest that is not whole yet. */
export function splitEvents(text: string): { events: Job[]; rest: string } {
  const parts = text.split(/\r?\n\r?\n/);
  const rest = parts.pop() ?? "";
  const events: Job[] = [];
  for (const part of parts) {
    const data = part
      .split(/\r?\n/)
      .filter((line) => line.startsWith("data:"))
      .map((line) => line.slice(5).trim())
      .join("\n");
    if (data) events.push(JSON.parse(data) as Job);
  }
  return { events, rest };
}

/** The JSON that came of a job. */
export const resultOf = <T>(id: string, stop?: AbortSignal): Promise<T> => get<T>(`/v1/jobs/${id}/result.json`, stop);

