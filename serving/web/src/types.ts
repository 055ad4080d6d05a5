/** What the server says, as in docs/serving.md. */

export interface PackedArray {
  dtype: "float32" | "int32";
  data: string;
}

export interface PackedValues {
  name: string;
  kind: "category" | "number";
  categories?: string[];
  codes?: PackedArray;
  values?: PackedArray;
  rows?: PackedArray;
  pieces?: number;
}

/** A label of each cell; -1 where there is none. */
export interface Categories {
  name: string;
  kind: "category";
  categories: string[];
  codes: Int32Array;
}

/** A number of each cell; NaN where there is none. */
export interface Numbers {
  name: string;
  kind: "number";
  values: Float32Array;
}

export type Values = Categories | Numbers;

export interface Finding {
  question: string;
  verdict: "ok" | "warning" | "error";
  found: string;
  fix: string;
}

export interface CellFile {
  id: string;
  filename: string;
  bytes: number;
  cells: number;
  genes: number;
  verdict: { verdict?: string; findings?: Finding[] };
  obs: Record<string, unknown[]>;
}

export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";

export interface Job {
  id: string;
  task: string;
  asked: Record<string, unknown>;
  state: JobState;
  done: number;
  total: number;
  cells: number;
  message: string;
  warnings: string[];
  summary: Record<string, unknown>;
  created: number;
  ended: number;
  results: Record<string, string>;
}

export interface Example {
  name: string;
  title: string;
  about: string;
  cells: number;
  questions: string[];
}

export interface About {
  version: string;
  models: { id: string; root?: string }[];
  examples: Example[];
  fields: Record<string, string[]>;
  perturbations: string[];
  limits: { file_bytes?: number; file_cells?: number; written?: number; question_characters?: number; chat_cells?: number };
}

export interface MapResult {
  layout: string;
  coordinates: PackedArray;
  genes?: number;
  seconds?: number;
}

export interface ClusterResult {
  clusters: PackedValues;
}

/** A request as plain data: what a question was read as. */
export type PlainRequest = { task: string } & Record<string, unknown>;

export type Fact = Record<string, string | number>;

export interface AnswerResult {
  request: PlainRequest;
  done: boolean;
  text: string;
  facts: Fact[];
}

export interface BarPlot {
  kind: "bar";
  of: string;
  by: string;
  value: string;
  labels: string[];
  values: number[];
}

export interface Reproduce {
  python: string;
  command: string;
}

export interface Answer {
  question: string;
  request: PlainRequest[];
  probability?: number;
  notes?: string[];
  text: string;
  shown?: string;
  results: AnswerResult[];
  plots?: BarPlot[];
  warnings?: string[];
  leans_on_the_question_before?: boolean;
  result?: string;
  reproduce?: Reproduce;
}

export interface ComparedGene {
  gene: string;
  log2: number;
  q: number;
  mean_a: number;
  mean_b: number;
  share_a: number;
  share_b: number;
}

export interface CompareResult {
  cells: [number, number];
  /** Genes that both sets measured; the first of them are told. */
  measured: number;
  genes: ComparedGene[];
}

export interface ChangedGene {
  gene: string;
  log2: number;
  low?: number;
  high?: number;
  q?: number;
}

export interface Baselines {
  ways: { name: string; about?: string; genes: { gene: string; log2: number }[] }[];
  why?: string;
}
