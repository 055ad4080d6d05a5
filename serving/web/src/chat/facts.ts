/** Bars from the facts of an answer, as the server draws them in a fresh one. */

import type { AnswerResult, BarPlot } from "../types";

const MOST_BARS = 12;
const NAMES = ["label", "gene"];
const VALUES = ["share", "p", "log2", "nats", "shift"];

export function plotsOf(results: AnswerResult[]): BarPlot[] {
  const found = new Map<string, BarPlot>();
  for (const result of results.filter((each) => each.done)) {
    for (const fact of result.facts) {
      const by = NAMES.find((name) => name in fact);
      const value = VALUES.find((name) => name in fact);
      if (!by || !value) continue;
      const key = `${result.request.task} ${by} ${value}`;
      const plot = found.get(key) ?? { kind: "bar", of: result.request.task, by, value, labels: [], values: [] };
      found.set(key, plot);
      if (plot.labels.length >= MOST_BARS) continue;
      plot.labels.push(String(fact[by]));
      plot.values.push(Number(fact[value]));
    }
  }
  return [...found.values()].filter((plot) => plot.labels.length > 1);
}
