/** What a reload needs: ids of the file, jobs and answers, and what was chosen. Everything else is fetched again from the server. */

import { signal } from "@preact/signals";
import type { Colouring, LayoutName } from "./store";
import type { PlainRequest } from "./types";

export interface KeptExchange {
  question: string;
  about: "selection" | "all" | "none";
  rows: number[] | null;
  model: string;
  corrected: PlainRequest[] | null;
  job: string;
}

export interface KeptMade {
  job: string;
  kind: "generated" | "changed";
  title: string;
  from: number[];
  isShown: boolean;
  /** The job that placed them, by the job of the map. */
  places: Record<string, string>;
}

export interface KeptCompared {
  job: string;
  names: [string, string];
}

export interface Work {
  file: string;
  filename: string;
  example: string;
  model: string;
  /** Job of each step: pca, cluster, umap, embed, embedding, first, all. */
  steps: Record<string, string>;
  layout: LayoutName;
  colouring: Colouring;
  panel: string;
  selection: { bits: string; said: string; ticked: { of: string; codes: number[] } | null } | null;
  keptSets: { name: string; rows: number[] }[];
  made: KeptMade[];
  compared: KeptCompared | null;
  thread: KeptExchange[];
  when: number;
}

const NAME = "scmulan.work";

export const noWork = (): Work => ({
  file: "",
  filename: "",
  example: "",
  model: "",
  steps: {},
  layout: "pca",
  colouring: { by: "cluster" },
  panel: "ask",
  selection: null,
  keptSets: [],
  made: [],
  compared: null,
  thread: [],
  when: 0,
});

export const work = signal<Work>(noWork());

function read(storage: Storage): Work | null {
  try {
    const text = storage.getItem(NAME);
    return text ? { ...noWork(), ...(JSON.parse(text) as Work) } : null;
  } catch {
    return null;
  }
}

/** The work of this tab, after a reload. */
export const workOfTab = (): Work | null => read(sessionStorage);
/** The last work of this browser, which may be taken up in a new tab. */
export const lastWork = (): Work | null => read(localStorage);

export function keep(change: Partial<Work>): void {
  work.value = { ...work.value, ...change, when: Date.now() };
  const text = JSON.stringify(work.value);
  for (const storage of [sessionStorage, localStorage]) {
    try {
      storage.setItem(NAME, text);
    } catch {
      // full, or not allowed: the page goes on, and a reload begins anew
    }
  }
}

export const keepStep = (step: string, job: string): void => keep({ steps: { ...work.value.steps, [step]: job } });

export function forgetSteps(...steps: string[]): void {
  keep({ steps: Object.fromEntries(Object.entries(work.value.steps).filter(([step]) => !steps.includes(step))) });
}

export function forgetWork(): void {
  work.value = noWork();
  sessionStorage.removeItem(NAME);
  localStorage.removeItem(NAME);
}
