/** Names of the clusters at their middles: what the model says they are. Buttons that choose the cluster; moved without a new rendering. */

import { computed, signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { chooseCluster } from "../selecting";
import * as store from "../store";
import { view } from "./map";
import { centres } from "./near";
import type { MapView } from "./view";

export const areShown = signal(true);

const middles = computed<Float32Array | null>(() => {
  const { value: layout } = store.layout;
  const { value: groups } = store.clusters;
  return layout && groups ? centres(layout.coordinates, groups.codes, groups.categories.length) : null;
});

let box: HTMLElement | null = null;

export function placeLabels(of: MapView): void {
  if (!box || !middles.peek()) return;
  const at = middles.peek()!;
  const taken: number[][] = [];
  const { width: w, height: h } = of;
  for (const child of Array.from(box.children) as HTMLElement[]) {
    const code = Number(child.dataset.code);
    const [x, y] = of.project(at[2 * code], at[2 * code + 1]);
    const half = Number(child.dataset.width) / 2;
    const tall = Number(child.dataset.height) / 2;
    const isOut = !(x > 0 && x < w && y > 0 && y < h);
    const left = Math.max(half + 4, Math.min(w - half - 4, x));
    // a label that would lie on a larger cluster's is moved down or up a little, or left out
    const hits = (at: number): boolean => taken.some(([l, t, s, u]) => Math.abs(t - at) < tall + u && Math.abs(l - left) < half + s + 3);
    const top = [0, 14, -14, 28, -28].map((by) => y + by).find((at) => !hits(at));
    const isHidden = isOut || top === undefined;
    child.style.visibility = isHidden ? "hidden" : "visible";
    if (isHidden) continue;
    taken.push([left, top, half, tall]);
    child.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px) translate(-50%, -50%)`;
  }
}

export function Labels() {
  const ref = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    box = ref.current;
    for (const child of Array.from(box?.children ?? []) as HTMLElement[]) {
      child.dataset.width = String(child.offsetWidth);
      child.dataset.height = String(child.offsetHeight);
    }
    if (view.value) placeLabels(view.value);
  });
  void middles.value;
  if (!areShown.value || !store.layout.value) return null;
  const rows = [...store.clusterRows.value].sort((a, b) => b.cells - a.cells);
  return (
    <div class="labels" ref={ref}>
      {rows.map((row) => (
        <button
          type="button"
          key={row.code}
          data-code={row.code}
          tabIndex={-1}
          aria-label={`Choose ${row.name}${row.answer ? `: ${row.answer}` : ""}`}
          onClick={() => chooseCluster(row.code)}
        >
          {row.answer ? short(row.answer) : row.name}
          {row.answer && row.share < 0.6 ? " ?" : ""}
        </button>
      ))}
    </div>
  );
}

/** Long names of cell types, made short enough for a map. */
export function short(name: string): string {
  const said = name
    .replace(/CD(\d+)-positive, CD(\d+)-positive,? alpha-beta /, "CD$1+ CD$2+ ")
    .replace(/CD(\d+)-positive, alpha-beta /, "CD$1+ ")
    .replace(/-positive/g, "+")
    .replace(/, alpha-beta/, "")
    .replace(/thymus-derived /, "");
  return said.length > 44 ? `${said.slice(0, 42)}…` : said;
}
