/** A plot of Observable Plot in the page; its library is fetched when the first plot is. Each plot has a text that says the same. */

import { useSignalEffect, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type * as Plot from "@observablehq/plot";
import { isDark } from "../theme";

export type Library = typeof Plot;

export interface PlotProps {
  /** What a screen reader is told; the plot is drawn anew when it changes. */
  label: string;
  /** Draws at a width; called again when that changes, or light and dark. */
  draw: (plot: Library, width: number) => SVGSVGElement | HTMLElement;
}

export function PlotView({ label, draw }: PlotProps) {
  const box = useRef<HTMLDivElement>(null);
  const width = useSignal(0);
  const drawing = useSignal(draw);
  const drawn = useRef(label);
  if (drawn.current !== label) {
    drawn.current = label;
    drawing.value = draw;
  }

  useEffect(() => {
    if (!box.current || typeof ResizeObserver === "undefined") return;
    const observer = new ResizeObserver(([entry]) => (width.value = Math.round(entry.contentRect.width)));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  useSignalEffect(() => {
    void isDark.value;
    const w = width.value;
    const make = drawing.value;
    if (w < 40) return;
    void import("@observablehq/plot").then((plot) => {
      const made = make(plot, w);
      // its own style sheet is not allowed by the page's policy; the rules stand in parts.css
      for (const style of Array.from(made.querySelectorAll("style"))) style.remove();
      made.setAttribute("aria-hidden", "true");
      made.removeAttribute("role");
      box.current?.replaceChildren(made);
    });
  });
  return (
    <figure class="plot-figure" role="img" aria-label={label}>
      <div ref={box} />
    </figure>
  );
}
