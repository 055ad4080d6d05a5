/** A dot plot: genes by two sets; the dot's size is the share of cells that have the gene, its colour the mean. */

import type { ComparedGene } from "../types";
import { number, percent } from "../words";
import { PlotView, type Library } from "./plot";

const ROW = 19;

export function Dots({ genes, names }: { genes: ComparedGene[]; names: [string, string] }) {
  const rows = genes.flatMap((each) => [
    { gene: each.gene, set: "A", share: each.share_a, mean: each.mean_a },
    { gene: each.gene, set: "B", share: each.share_b, mean: each.mean_b },
  ]);
  const title = (row: (typeof rows)[number]): string => `${row.gene}, ${row.set}: in ${percent(row.share)} of cells, mean ${number(row.mean)}`;
  const draw = (library: Library, width: number): HTMLElement | SVGSVGElement =>
    library.plot({
      width: Math.min(width, 360),
      height: genes.length * ROW + 40,
      marginLeft: 90,
      marginTop: 28,
      marginBottom: 4,
      className: "plot",
      x: { domain: ["A", "B"], axis: "top", label: null, tickSize: 0, padding: 0.4 },
      y: { domain: genes.map((each) => each.gene), label: null, tickSize: 0 },
      r: { domain: [0, 1], range: [0, 8] },
      color: { scheme: "viridis", type: "linear" },
      marks: [
        library.gridY({ strokeOpacity: 0.12 }),
        library.dot(rows, { x: "set", y: "gene", r: "share", fill: "mean", stroke: "currentColor", strokeOpacity: 0.5, title }),
        library.text(rows, { x: "set", y: "gene", text: (row: { share: number }) => percent(row.share), dx: 13, textAnchor: "start", fontSize: 10 }),
      ],
    });
  return (
    <div>
      <p class="plot-title">
        Dot plot <span class="quiet">size and figure: share of cells with the gene; colour: mean, dark low, light high; A {names[0]}, B {names[1]}</span>
      </p>
      <PlotView label={`Dot plot. ${rows.map(title).join("; ")}`} draw={draw} />
    </div>
  );
}
