/** A volcano: how much each gene differs, and how sure that is; the surest are named. */

import type { ChangedGene } from "../types";
import { number } from "../words";
import { PlotView, type Library } from "./plot";

const NAMED = 14;
const SURE = 0.05;
const LEAST_Q = 1e-300;
const HALO = { stroke: "var(--surface)", strokeWidth: 3, fill: "currentColor" };

interface Row {
  gene: string;
  x: number;
  y: number;
}

/** Those whose names don't lie on each other, the most notable first. */
function apart<T extends Row>(rows: T[], width: number, height: number): T[] {
  const most = Math.max(...rows.map((row) => row.y), 1e-9);
  const [low, high] = [Math.min(...rows.map((row) => row.x), 0), Math.max(...rows.map((row) => row.x), 0)];
  const taken: number[][] = [];
  return rows
    .filter((row) => {
      const x = ((row.x - low) / (high - low || 1)) * (width - 54);
      const y = (row.y / most) * (height - 60);
      const long = 7 * row.gene.length + 6;
      const [from, to] = row.x < 0 ? [x, x + long] : [x - long, x];
      if (taken.some(([f, t, at]) => Math.abs(at - y) < 12 && from < t && to > f)) return false;
      taken.push([from, to, y]);
      return true;
    })
    .slice(0, NAMED);
}

export function Volcano({ genes, title, left, right }: { genes: ChangedGene[]; title: string; left: string; right: string }) {
  const hasQ = genes.some((each) => each.q !== undefined && each.q !== null);
  const rows = genes
    .filter((each) => Number.isFinite(each.log2))
    .map((each) => ({ gene: each.gene, x: each.log2, y: hasQ ? -Math.log10(Math.max(each.q ?? 1, LEAST_Q)) : Math.abs(each.log2), isSure: !hasQ || (each.q ?? 1) < SURE }));
  const notable = [...rows].sort((a, b) => b.y * Math.abs(b.x) - a.y * Math.abs(a.x)).slice(0, 4 * NAMED);
  const sure = rows.filter((row) => row.isSure);
  const draw = (library: Library, width: number): SVGSVGElement => {
    const height = Math.min(320, Math.max(230, width * 0.72));
    const named = apart(notable, width, height);
    return library.plot({
      width,
      height,
      marginLeft: 40,
      marginRight: 14,
      marginTop: 26,
      marginBottom: 34,
      className: "plot",
      x: { label: `← ${left} · log2 · ${right} →`, labelAnchor: "center", labelArrow: "none" },
      y: { label: hasQ ? "−log10 q" : "size of the change", domain: [0, Math.max(1.5, ...rows.map((row) => row.y))], nice: true },
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
        ...[-1, 1].map((side) =>
          library.text(
            named.filter((row) => row.x * side > 0),
            { x: "x", y: "y", text: "gene", textAnchor: side < 0 ? "start" : "end", dx: -6 * side, fontSize: 11, ...HALO },
          ),
        ),
        library.tip(rows, library.pointer({ x: "x", y: "y", title: (row: { gene: string; x: number }) => `${row.gene} ${number(row.x)}`, fill: "var(--surface)" })),
      ],
    }) as SVGSVGElement;
  };
  const label =
    `${title}: ${rows.length} genes${hasQ ? `, ${sure.length} with q below ${SURE}` : ""}. Most notable: ` +
    notable.slice(0, NAMED).map((row) => `${row.gene} ${number(row.x)}`).join(", ");
  return (
    <div>
      <p class="plot-title">
        {title} <span class="quiet">{hasQ ? `triangles: q below ${SURE}, ${sure.length} of ${rows.length}` : ""}</span>
      </p>
      <PlotView label={label} draw={draw} />
    </div>
  );
}
