/** What the page knows: signals that the parts of the page read and the flows (`opening`, `annotating`, ...) write. */

import { computed, signal } from "@preact/signals";
import type { Fit } from "./map/near";
import type { About, Answer, Categories, CellFile, CompareResult, Numbers, PlainRequest, Values } from "./types";

export type LayoutName = "pca" | "umap" | "embedding";

export interface Layout {
  job: string;
  coordinates: Float32Array;
  fit: Fit;
}

export type Colouring = { by: "cluster" | "answer" | "probability" } | { by: "obs" | "gene"; name: string };

/** Some of the file's cells; `ticked` are the categories of the legend that made it. */
export interface Selection {
  mask: Uint8Array;
  rows: Int32Array;
  said: string;
  ticked: { of: string; codes: number[] } | null;
}

/** Cells that the model wrote: by a kind, or from the selection after a change. */
export interface Made {
  job: string;
  kind: "generated" | "changed";
  title: string;
  cells: number;
  isShown: boolean;
  /** Rows of the file's cells that these came from, for a change. */
  from: number[];
  /** Where they lie, by the job of the map. */
  placed: Record<string, Float32Array>;
  /** The job that placed them there. */
  places: Record<string, string>;
}

export interface Exchange {
  question: string;
  about: "selection" | "all" | "none";
  rows: number[] | null;
  model: string;
  /** What was sent in place of the reading, corrected. */
  corrected: PlainRequest[] | null;
  job: string;
  answer: Answer | null;
  error: string;
  began: number;
}

export const about = signal<About | null>(null);
export const model = signal("");
export const file = signal<CellFile | null>(null);
export const example = signal("");
export const opening = signal<{ name: string; share: number } | null>(null);
export const openError = signal("");

export const layouts = signal<Partial<Record<LayoutName, Layout>>>({});
export const layoutName = signal<LayoutName>("pca");
export const layout = computed<Layout | null>(() => layouts.value[layoutName.value] ?? null);
export const clusters = signal<Categories | null>(null);
export const answers = signal<Categories | null>(null);
export const probabilities = signal<Numbers | null>(null);
export const answeredAll = signal(false);

export const colouring = signal<Colouring>({ by: "cluster" });
export const colourError = signal("");
/** Values of the column or gene that is coloured by, as fetched. */
export const fetched = signal<Values | null>(null);
/** Whether the values that are coloured by next are on their way; until then the colours stay. */
export const isFetching = signal(false);
let last: Values | null = null;
export const coloured = computed<Values | null>(() => (isFetching.value ? last : (last = valuesNow())));

function valuesNow(): Values | null {
  switch (colouring.value.by) {
    case "cluster":
      return clusters.value;
    case "answer":
      return answers.value;
    case "probability":
      return probabilities.value;
    default:
      return fetched.value;
  }
}

export const selection = signal<Selection | null>(null);
/** Sets that were kept by name, to be compared. */
export const keptSets = signal<{ name: string; rows: number[] }[]>([]);
export const compared = signal<{ job: string; names: [string, string]; result: CompareResult } | null>(null);
export const made = signal<Made[]>([]);
export const thread = signal<Exchange[]>([]);
export const panel = signal<"ask" | "generate" | "change" | "compare" | "table">("ask");
/** What screen readers are told, politely. */
export const told = signal("");

export interface ClusterRow {
  code: number;
  name: string;
  cells: number;
  answered: number;
  answer: string;
  share: number;
  probability: number;
}

/** Each cluster with the answer that most of its cells got, as far as they are answered. */
export const clusterRows = computed<ClusterRow[]>(() => {
  if (!clusters.value) return [];
  return summarize(clusters.value, answers.value, probabilities.value);
});

export function summarize(groups: Categories, given: Categories | null, sure: Numbers | null): ClusterRow[] {
  const n = groups.categories.length;
  const labels = given?.categories.length ?? 0;
  const cells = new Int32Array(n);
  const votes = new Int32Array(n * labels);
  const sums = new Float64Array(n * labels);
  for (let i = 0; i < groups.codes.length; i++) {
    const group = groups.codes[i];
    if (group < 0) continue;
    cells[group]++;
    const label = given ? given.codes[i] : -1;
    if (label < 0) continue;
    votes[group * labels + label]++;
    sums[group * labels + label] += sure?.values[i] || 0;
  }
  return groups.categories.map((name, code) => {
    let best = -1;
    let answered = 0;
    for (let label = 0; label < labels; label++) {
      const count = votes[code * labels + label];
      answered += count;
      if (count > 0 && (best < 0 || count > votes[code * labels + best])) best = label;
    }
    const count = best < 0 ? 0 : votes[code * labels + best];
    return {
      code,
      name,
      cells: cells[code],
      answered,
      answer: best < 0 ? "" : given!.categories[best],
      share: answered ? count / answered : 0,
      probability: count ? sums[code * labels + best] / count : NaN,
    };
  });
}
