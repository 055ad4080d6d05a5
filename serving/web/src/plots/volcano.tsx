/** A volcano: how much each gene differs, and how sure that is; the surest are named. */

import type { ChangedGene } from "../types";
import { number } from "../words";
import { PlotView, type Library } from "./plot";

const NAMED = 12;
const SURE = 0.05;
const LEAST_Q = 1e-30;

export function Volcano({ genes, title, left, right }: { genes: ChangedGene[]; title: string; left: string; right: string }) {
  const hasQ = genes.some((each) => each.q !== undefined && each.q !== null);
  const rows = genes
    .filter((each) => Number.isFinite(each.log2))
    .map((each) => ({ gene: each.gene, x: each.log2, y: hasQ ? -Math.log10(Math.max(each.q ?? 1, LEAST_Q)) : Math.abs(each.log2), isSure: !hasQ || (each.q ?? 1) < SURE }));
  const named = [...rows].sort((a, b) => b.y * Math.abs(b.x) - a.y * Math.abs(a.x)).slice(0, NAMED);
  const sure = rows.filter((row) => row.isSure);
  const draw = (library: Library, width: number): SVGSVGElement =>
    library.plot({
      width,
      height: Math.min(300, Math.max(220, width * 0.7)),
      marginLeft: 40,
      marginBottom: 34,
      className: "plot",
      x: { label: `← ${left} · log2 · ${right} →`, labelAnchor: "center", labelArrow: "none" },
      y: { label: hasQ ? "−log10 q" : "size of the change", nice: true },
      marks: [
        library.ruleX([0], { stroke: "currentColor", strokeOpacity: 0.3 }),
        library.dot(rows, {
          x: "x",
          y: "y",
          r: 2.4,
          symbol: (row: { isSure: boolean; x: number }) => (!row.isSure ? "circle" : row.x < 0 ? "triangle2" : "triangle"),
          fill: (row: { isSure: boolean; x: number }) => (!row.isSure ? "var(--faint)" : row.x < 0 ? "var(--against)" : "var(--for)"),
          fillOpacity: 0.8,
        }),
        library.text(named, { x: "x", y: "y", text: "gene", dy: -8, fontSize: 10.5, stroke: "var(--surface)", strokeWidth: 3, fill: "currentColor" }),
        library.tip(rows, library.pointer({ x: "x", y: "y", title: (row: { gene: string; x: number }) => `${row.gene} ${number(row.x)}`, fill: "var(--surface)" })),
      ],
    }) as SVGSVGElement;
  const label =
    `${title}: ${rows.length} genes${hasQ ? `, ${sure.length} with q below ${SURE}` : ""}. Most notable: ` +
    named.map((row) => `${row.gene} ${number(row.x)}`).join(", ");
  return (
    <div>
      <p class="plot-title">
        {title} <span class="quiet">{hasQ ? `triangles: q below ${SURE}, ${sure.length} of ${rows.length}` : ""}</span>
      </p>
      <PlotView label={label} draw={draw} />
    </div>
  );
}
