/** The map's canvas: deck.gl with its view, the layers of cells, and how it moves. Knows nothing of the page around it. */

import { Deck, OrthographicView, type Layer } from "@deck.gl/core";
import { LineLayer } from "@deck.gl/layers";
import { Pace } from "./pace";
import { PointsLayer } from "./points";

export interface Points {
  id: string;
  /** x, y in the order of drawing. */
  from: Float32Array;
  to: Float32Array;
  look: Uint8Array;
  lookVersion: number;
  isMade?: boolean;
}

export interface Lines {
  id: string;
  /** x0, y0, x1, y1 of each. */
  ends: Float32Array;
  colour: [number, number, number, number];
  width: number;
}

const LEAST_ZOOM = -2;
const MOST_ZOOM = 9;
const SLIDE = 900;
const STILL = 250;
/** Pixels drawn for each of the page: fine when still; coarse while moving where frames are slow. */
const FINE = Math.min(window.devicePixelRatio || 1, 2);
const COARSE = 0.5;

/** Where frames are slow the picture itself is shifted while the map is dragged, and drawn anew after so many milliseconds, or this share of it. */
const SHIFTED = 220;
const FAR = 0.35;

interface State {
  target: [number, number];
  zoom: number;
}

export class MapView {
  private readonly deck: Deck<OrthographicView>;
  private readonly pace = new Pace();
  private state: State = { target: [0, 0], zoom: 8 };
  private points: Points[] = [];
  private lines: Lines[] = [];
  private blend = 1;
  private isMoving = false;
  private stillTimer = 0;
  private shown = 0;
  private canPan = true;
  private isDark = false;
  private wantsFit = true;
  private isHeld = false;
  private ratio = FINE;
  private readonly canvas: () => HTMLElement | null;
  /** What deck.gl was told last, and what its picture shows. */
  private sent: State = this.state;
  private drawn: State = this.state;
  private sentAt = 0;
  /** Of the box, kept: to ask for it between writes of styles would lay the page out each time. */
  width = 1;
  height = 1;
  /** Frames drawn since the page was opened, for measuring. */
  frames = 0;

  constructor(
    readonly box: HTMLElement,
    private readonly onView: () => void,
  ) {
    this.canvas = () => box.querySelector("canvas");
    this.measure();
    this.deck = new Deck({
      parent: box as HTMLDivElement,
      views: new OrthographicView({ id: "map", flipY: false, controller: this.controller() }),
      viewState: this.state,
      deviceProps: { type: "webgl", webgl: { antialias: false, powerPreference: "high-performance" } },
      useDevicePixels: this.ratio,
      layers: [],
      getCursor: ({ isDragging }) => (isDragging ? "grabbing" : "inherit"),
      onViewStateChange: ({ viewState }) => this.moveTo(viewState as unknown as State),
      onAfterRender: () => {
        this.frames++;
        this.drawn = this.sent;
        this.shift();
      },
      onResize: () => {
        this.measure();
        if (this.wantsFit) this.fit();
        else this.onView();
      },
    });
  }

  private measure(): void {
    this.width = this.box.clientWidth;
    this.height = this.box.clientHeight;
  }

  /** While a pointer holds the map it counts as moving, however slow the frames are. */
  hold(isHeld: boolean): void {
    this.isHeld = isHeld;
    if (!isHeld && this.isMoving) this.begin();
  }

  private controller(): object {
    return {
      dragPan: this.canPan,
      scrollZoom: { speed: 0.008, smooth: false },
      doubleClickZoom: false,
      dragRotate: false,
      touchRotate: false,
      touchZoom: true,
      keyboard: false,
    };
  }

  setCanPan(canPan: boolean): void {
    this.canPan = canPan;
    this.deck.setProps({ views: new OrthographicView({ id: "map", flipY: false, controller: this.controller() }) });
  }

  setDark(isDark: boolean): void {
    this.isDark = isDark;
    this.layers();
  }

  setPoints(points: Points[]): void {
    this.points = points;
    this.layers();
  }

  setLines(lines: Lines[]): void {
    this.lines = lines;
    this.layers();
  }

  /** From where cells were to where they are now. */
  slide(then: () => void): void {
    if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) return then();
    const began = performance.now();
    this.blend = 0;
    this.begin();
    const next = (): void => {
      const share = Math.min(1, (performance.now() - began) / SLIDE);
      this.blend = share * share * (3 - 2 * share);
      this.begin();
      if (share < 1) requestAnimationFrame(next);
      else then();
    };
    requestAnimationFrame(next);
  }

  moveTo(state: State): void {
    const [x, y] = state.target;
    const zoom = Array.isArray(state.zoom) ? (state.zoom as number[])[0] : state.zoom; // deck may give one for each axis
    this.wantsFit = false;
    this.state = {
      target: [Math.max(-1.5, Math.min(1.5, x)), Math.max(-1.5, Math.min(1.5, y))],
      zoom: Math.max(this.fitZoom() + LEAST_ZOOM, Math.min(this.fitZoom() + MOST_ZOOM, zoom)),
    };
    this.begin();
    if (this.isDue()) this.send();
    else this.shift();
    this.onView();
  }

  private send(): void {
    this.sent = this.state;
    this.sentAt = performance.now();
    this.deck.setProps({ viewState: this.state });
  }

  /** How far the picture is from where it ought to be, in pixels of the page. */
  private distance(): [number, number] {
    const scale = 2 ** this.state.zoom;
    return [(this.drawn.target[0] - this.state.target[0]) * scale, (this.state.target[1] - this.drawn.target[1]) * scale];
  }

  /** Whether the map has to be drawn anew: always where frames are quick, or the zoom is another. */
  private isDue(): boolean {
    if (!this.isMoving || !this.pace.isStrained || this.blend < 1 || this.state.zoom !== this.drawn.zoom) return true;
    const [dx, dy] = this.distance();
    return performance.now() - this.sentAt > SHIFTED || Math.abs(dx) > FAR * this.width || Math.abs(dy) > FAR * this.height;
  }

  private shift(): void {
    const canvas = this.canvas();
    if (!canvas) return;
    const [dx, dy] = this.state.zoom === this.drawn.zoom ? this.distance() : [0, 0];
    canvas.style.transform = Math.abs(dx) + Math.abs(dy) < 0.1 ? "" : `translate(${dx}px, ${dy}px)`;
  }

  /** Moves by a share of the view. */
  pan(dx: number, dy: number): void {
    const scale = 2 ** this.state.zoom;
    const [x, y] = this.state.target;
    this.moveTo({ ...this.state, target: [x + (dx * this.width) / scale, y + (dy * this.height) / scale] });
  }

  zoom(by: number): void {
    this.moveTo({ ...this.state, zoom: this.state.zoom + by });
  }

  private fitZoom(): number {
    return Math.log2(Math.max(60, Math.min(this.width, this.height)) / 2.16);
  }

  fit(): void {
    this.moveTo({ target: [0, 0], zoom: this.fitZoom() });
    this.wantsFit = true;
  }

  /** Pixels of a place on the map. */
  project(x: number, y: number): [number, number] {
    const scale = 2 ** this.state.zoom;
    const [tx, ty] = this.state.target;
    return [(x - tx) * scale + this.width / 2, (ty - y) * scale + this.height / 2];
  }

  unproject(px: number, py: number): [number, number] {
    const scale = 2 ** this.state.zoom;
    const [tx, ty] = this.state.target;
    return [(px - this.width / 2) / scale + tx, ty - (py - this.height / 2) / scale];
  }

  /** Map units of so many pixels. */
  units = (pixels: number): number => pixels / 2 ** this.state.zoom;

  /** While it moves as many points are drawn as the machine bears; all when it is still. */
  private begin(): void {
    window.clearTimeout(this.stillTimer);
    this.stillTimer = window.setTimeout(() => {
      if (this.isHeld) return;
      this.isMoving = false;
      this.send();
      this.draw(FINE);
    }, STILL);
    if (this.isMoving) return;
    this.isMoving = true;
    this.pace.begin();
    const next = (): void => {
      if (!this.isMoving) return;
      requestAnimationFrame(next);
      if (!this.isDue()) return;
      if (this.sent !== this.state) this.send();
      this.shown = this.pace.frame(this.points[0]?.to.length / 2 || 0);
      this.draw(this.pace.isStrained ? COARSE : this.ratio);
    };
    next();
  }

  private draw(ratio: number): void {
    if (ratio !== this.ratio) {
      this.ratio = ratio;
      this.deck.setProps({ useDevicePixels: ratio });
    }
    this.layers();
  }

  private size(n: number): number {
    const grown = 1 + 0.22 * Math.max(0, this.state.zoom - this.fitZoom());
    const side = Math.max(0.5, Math.min(1.2, Math.min(this.width, this.height) / 700));
    return Math.max(1.6, side * Math.min(7, 32 / Math.max(n, 1) ** 0.25)) * grown;
  }

  private layers(): void {
    const outline: [number, number, number, number] = this.isDark ? [1, 1, 1, 1] : [0.05, 0.05, 0.05, 1];
    const made: Layer[] = this.points.map((each) => {
      const n = each.to.length / 2;
      const size = this.size(this.points[0].to.length / 2);
      return new PointsLayer({
        id: each.id,
        from: each.from,
        to: each.to,
        look: each.look,
        lookVersion: each.lookVersion,
        blend: each.isMade ? 1 : this.blend,
        size: each.isMade ? Math.max(9, size * 1.8) : size,
        dim: this.isDark ? 0.16 : 0.14,
        opacity: each.isMade ? 1 : 0.85,
        shown: this.isMoving && !each.isMade ? Math.min(n, this.shown) : n,
        outline: each.isMade ? outline : [0, 0, 0, 0],
        parameters: { depthCompare: each.isMade ? "always" : "less-equal", depthWriteEnabled: !each.isMade },
      });
    });
    for (const each of this.lines) {
      const n = each.ends.length / 4;
      made.push(
        new LineLayer({
          id: each.id,
          data: Array.from({ length: n }, (_, i) => i),
          getSourcePosition: (i: number) => [each.ends[4 * i], each.ends[4 * i + 1], 0],
          getTargetPosition: (i: number) => [each.ends[4 * i + 2], each.ends[4 * i + 3], 0],
          getColor: each.colour,
          getWidth: each.width,
          updateTriggers: { getSourcePosition: each.ends, getTargetPosition: each.ends, getColor: each.colour },
        }),
      );
    }
    this.deck.setProps({ layers: made });
  }

  destroy(): void {
    window.clearTimeout(this.stillTimer);
    this.isMoving = false;
    this.deck.finalize();
  }
}
