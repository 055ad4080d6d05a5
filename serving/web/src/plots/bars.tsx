/** Bars by label or gene: shares, probabilities, or what speaks for and against. */

import type { BarPlot } from "../types";
import { number, percent } from "../words";
import { PlotView, type Library } from "./plot";

const ROW = 20;

export function Bars({ plot, title }: { plot: BarPlot; title: string }) {
  const isShare = plot.value === "share" || plot.value === "p";
  const said = (value: number): string => (isShare ? percent(value) : `${value > 0 ? "+" : ""}${number(value)}`);
  const rows = plot.labels.map((label, i) => ({ label, value: plot.values[i] }));
  const hasSigns = rows.some((row) => row.value < 0);
  const draw = (library: Library, width: number): SVGSVGElement => {
    const left = Math.min(width * 0.5, 20 + 7.4 * Math.max(...plot.labels.map((label) => label.length)));
    const most = Math.floor((left - 14) / 7.2);
    const short = (label: string): string => (label.length > most ? `${label.slice(0, Math.max(3, most - 1))}…` : label);
    const greatest = Math.max(...rows.map((row) => Math.abs(row.value)), 1e-9);
    return library.plot({
      width,
      height: rows.length * ROW + 4,
      marginLeft: left,
      marginRight: 46,
      marginTop: 2,
      marginBottom: 2,
      className: "plot",
      x: { axis: null, domain: [hasSigns ? -greatest * 1.25 : 0, greatest] },
      y: { label: null, tickSize: 0, tickFormat: short, domain: plot.labels },
      marks: [
        library.barX(rows, {
          x: "value",
          y: "label",
          fill: (row: { value: number }) => (row.value < 0 ? "var(--against)" : "var(--for)"),
          insetTop: 3,
          insetBottom: 3,
        }),
        library.ruleX([0], { stroke: "currentColor", strokeOpacity: 0.4 }),
        library.text(rows, {
          x: "value",
          y: "label",
          text: (row: { value: number }) => said(row.value),
          textAnchor: "start",
          filter: (row: { value: number }) => row.value >= 0,
          dx: 4,
        }),
        library.text(rows, {
          x: "value",
          y: "label",
          text: (row: { value: number }) => said(row.value),
          textAnchor: "end",
          filter: (row: { value: number }) => row.value < 0,
          dx: -4,
        }),
      ],
    }) as SVGSVGElement;
  };
  return (
    <div class="bars">
      <p class="plot-title">{title}</p>
      <PlotView label={`${title}. ${rows.map((row) => `${row.label} ${said(row.value)}`).join(", ")}`} draw={draw} />
    </div>
  );
}
