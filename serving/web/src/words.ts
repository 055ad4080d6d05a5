/** Numbers and names as people read them. */

export const count = (n: number): string => n.toLocaleString("en");
export const cells = (n: number): string => `${count(n)} ${n === 1 ? "cell" : "cells"}`;

export function percent(share: number): string {
  if (Number.isNaN(share)) return "";
  if (share > 0.995 && share < 1) return "over 99 %";
  return `${Math.round(100 * share)} %`;
}

export function number(value: number | undefined, digits = 3): string {
  if (value === undefined || !Number.isFinite(value)) return "";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}

/** A name of the server as words: cell_type, scmulan_organ. */
export const words = (name: string): string => name.replace(/^scmulan_/, "").replace(/_/g, " ");

export const seconds = (from: number, to = Date.now()): string => {
  const s = Math.max(0, Math.round((to - from) / 1000));
  return s < 90 ? `${s} s` : `${Math.floor(s / 60)} min ${s % 60} s`;
};

const TASKS: Record<string, string> = {
  annotate: "name the cell types",
  generate: "write new cells",
  locate: "name the organ",
  describe: "describe the cells",
  complete: "write cells around given genes",
  perturb: "write the cells after a perturbation",
  explain_shift: "find the perturbation behind a change",
  next_state: "write what the cells become",
  fate: "name the types the cells will take",
  enhance: "write the cells as if sequenced deeper",
  embed: "embed the cells",
  edit: "change genes in the cells",
  screen: "rank genes toward a goal",
  speaks_for: "name the genes for and against a type",
  genes_like: "find genes that are alike",
  search: "find similar reference cells",
  outside: "not about cells",
  map: "map the cells",
  cluster: "find clusters",
  place: "put cells on the map",
  compare: "compare two sets",
};

export const taskWords = (task: string): string => TASKS[task] ?? words(task);
export const TASK_NAMES = Object.keys(TASKS).filter((each) => !["map", "cluster", "place", "compare", "outside"].includes(each));
