/** The map with what stands on it: labels, what is under the pointer, lines that are being drawn around cells; and its keys. */

import { signal, useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import * as store from "../store";
import { addRows, chooseRows } from "../selecting";
import { Hover, hovered } from "./hover";
import { Labels, placeLabels } from "./labels";
import { nearest, within } from "./near";
import { draw, grid } from "./scene";
import type { MapView } from "./view";

export type Tool = "pan" | "lasso" | "box";
export const tool = signal<Tool>("pan");
export const view = signal<MapView | null>(null);
/** Corners, in pixels, of what is being drawn around cells. */
const drawn = signal<number[]>([]);
const STEP = 0.12;
const NEAR = 10;

export function CellMap() {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    let end = (): void => undefined;
    let isGone = false;
    void import("./view").then(({ MapView }) => {
      if (isGone || !box.current) return;
      const made = new MapView(box.current, () => placeLabels(made));
      view.value = made;
      (window as { scmulanMap?: MapView }).scmulanMap = made;
      const stopDrawing = draw(made);
      end = () => {
        stopDrawing();
        view.value = null;
        made.destroy();
      };
    });
    return () => {
      isGone = true;
      end();
    };
  }, []);
  useEffect(() => {
    // let go outside of the map
    window.addEventListener("pointerup", onLetGo);
    return () => window.removeEventListener("pointerup", onLetGo);
  }, []);
  useSignalEffect(() => view.value?.setCanPan(tool.value === "pan"));

  return (
    <div
      class="map"
      role="group"
      tabIndex={0}
      aria-label="Map of the cells"
      aria-describedby="map-keys"
      onKeyDown={onKey}
      data-tool={tool.value}
    >
      <p id="map-keys" class="hidden">
        Each point is a cell; cells that are alike lie near each other. Arrow keys move the map, plus and minus zoom, 0 shows all of it, Escape
        clears the choice. The table of clusters says the same as the map; cells are chosen by keyboard in the legend or in that table.
      </p>
      <div
        class="map-canvas"
        ref={box}
        onPointerDown={onDown}
        onPointerMove={onMove}
        onPointerUp={onUp}
        onPointerCancel={onLost}
        onPointerLeave={() => (hovered.value = null)}
      />
      <Drawn />
      <Labels />
      <Hover />
    </div>
  );
}

function Drawn() {
  if (drawn.value.length < 4) return null;
  const points = [];
  for (let i = 0; i < drawn.value.length; i += 2) points.push(`${drawn.value[i]},${drawn.value[i + 1]}`);
  return (
    <svg class="map-drawn" aria-hidden="true">
      <polygon points={points.join(" ")} />
    </svg>
  );
}

let down: { x: number; y: number; isAdding: boolean; draws: Tool } | null = null;

const at = (event: PointerEvent): [number, number] => {
  const box = view.value!.box.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

function onDown(event: PointerEvent): void {
  if (!view.value || event.button !== 0) return;
  const [x, y] = at(event);
  down = { x, y, isAdding: event.shiftKey || event.ctrlKey || event.metaKey, draws: tool.value };
  hovered.value = null;
  view.value.hold(tool.value === "pan");
  if (tool.value !== "pan") {
    (event.currentTarget as Element).setPointerCapture(event.pointerId);
    drawn.value = [x, y];
  }
}

function onMove(event: PointerEvent): void {
  if (!view.value) return;
  const [x, y] = at(event);
  if (!down) return hover(x, y);
  if (down.draws === "lasso") {
    const [lx, ly] = drawn.value.slice(-2);
    if (Math.hypot(x - lx, y - ly) > 3) drawn.value = [...drawn.value, x, y];
  } else if (down.draws === "box") {
    drawn.value = [down.x, down.y, x, down.y, x, y, down.x, y];
  }
}

function onUp(event: PointerEvent): void {
  const began = down;
  down = null;
  view.value?.hold(false);
  const corners = drawn.value;
  drawn.value = [];
  if (!began || !view.value || !store.layout.value) return;
  const [x, y] = at(event);
  if (Math.hypot(x - began.x, y - began.y) < 4) return clicked(x, y, began.isAdding);
  if (began.draws === "pan" || corners.length < 6) return;
  const polygon: number[] = [];
  for (let i = 0; i < corners.length; i += 2) polygon.push(...view.value.unproject(corners[i], corners[i + 1]));
  const rows = within(store.layout.value.coordinates, polygon);
  if (began.isAdding) addRows(rows, "cells chosen on the map");
  else chooseRows(rows, "cells chosen on the map");
}

const onLetGo = (): void => view.value?.hold(false);

function onLost(): void {
  down = null;
  drawn.value = [];
  view.value?.hold(false);
}

const rowAt = (x: number, y: number): number => {
  if (!grid.value || !view.value) return -1;
  return nearest(grid.value, ...view.value.unproject(x, y), view.value.units(NEAR));
};

function clicked(x: number, y: number, isAdding: boolean): void {
  const row = rowAt(x, y);
  if (row < 0) {
    if (!isAdding) chooseRows(null, "");
  } else if (isAdding) addRows(Int32Array.of(row), `cell ${row + 1}`);
  else chooseRows(Int32Array.of(row), `cell ${row + 1}`);
}

function hover(x: number, y: number): void {
  const row = rowAt(x, y);
  hovered.value = row < 0 ? null : { row, x, y };
}

function onKey(event: KeyboardEvent): void {
  if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey || !view.value) return;
  const does: Record<string, () => void> = {
    ArrowLeft: () => view.value!.pan(-STEP, 0),
    ArrowRight: () => view.value!.pan(STEP, 0),
    ArrowUp: () => view.value!.pan(0, STEP),
    ArrowDown: () => view.value!.pan(0, -STEP),
    "+": () => view.value!.zoom(0.5),
    "=": () => view.value!.zoom(0.5),
    "-": () => view.value!.zoom(-0.5),
    "0": () => view.value!.fit(),
    Escape: () => chooseRows(null, ""),
  };
  const act = does[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}
