/** A small server of our own: what the contract says, over fetch. */

import { vi } from "vitest";
import type { Job } from "../src/types";

export function packed(values: number[], dtype: "float32" | "int32"): { dtype: "float32" | "int32"; data: string } {
  const bytes = new Uint8Array((dtype === "float32" ? Float32Array.from(values) : Int32Array.from(values)).buffer);
  return { dtype, data: btoa(String.fromCharCode(...bytes)) };
}

export const job = (change: Partial<Job> = {}): Job => ({
  id: "job-000000000000000000000001",
  task: "annotate",
  asked: {},
  state: "running",
  done: 0,
  total: 2,
  cells: 0,
  message: "",
  warnings: [],
  summary: {},
  created: 0,
  ended: 0,
  results: {},
  ...change,
});

export const said = (body: unknown, status = 200, headers: Record<string, string> = {}): Response =>
  new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json", ...headers } });

export function stream(...parts: string[]): Response {
  const encoder = new TextEncoder();
  return new Response(
    new ReadableStream({
      start(controller) {
        for (const part of parts) controller.enqueue(encoder.encode(part));
        controller.close();
      },
    }),
  );
}

export const event = (of: Job): string => `event: job\ndata: ${JSON.stringify(of)}\n\n`;

/** Answers each call in turn; a function may look at the request. */
export function answering(...answers: (Response | Error | ((path: string, init: RequestInit) => Response))[]) {
  const left = [...answers];
  const mock = vi.fn(async (path: string, init: RequestInit = {}) => {
    const next = left.length > 1 ? left.shift()! : left[0];
    if (next instanceof Error) throw next;
    return typeof next === "function" ? next(path, init) : next.clone();
  });
  vi.stubGlobal("fetch", mock);
  return mock;
}
