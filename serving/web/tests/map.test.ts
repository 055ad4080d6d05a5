import { describe, expect, it } from "vitest";
import { centres, fitted, gridOf, nearest, place, within } from "../src/map/near";
import { FEWEST, Pace } from "../src/map/pace";
import { categoryColour, categoryShape, NONE, numberColour, paint, rangeOf } from "../src/map/palette";
import { short } from "../src/map/labels";

const square = Float32Array.of(-0.5, -0.5, 0.5, -0.5, 0.5, 0.5, -0.5, 0.5);

describe("places on the map", () => {
  it("are brought into a square of which the shape is kept", () => {
    const { coordinates, fit } = fitted(Float32Array.of(0, 0, 10, 5));
    expect(Array.from(coordinates)).toEqual([-1, -0.5, 1, 0.5]);
    expect(Array.from(place(Float32Array.of(5, 2.5), fit))).toEqual([0, 0]);
  });

  it("have one nearest cell, or none that is near enough", () => {
    const grid = gridOf(square);
    expect(nearest(grid, 0.45, 0.52, 0.2)).toBe(2);
    expect(nearest(grid, 0, 0, 0.2)).toBe(-1);
  });

  it("find the same nearest cell as a look at each", () => {
    const many = Float32Array.from({ length: 4000 }, (_, i) => Math.sin(i * 12.9898) * 0.99);
    const grid = gridOf(many);
    for (const [x, y] of [[0, 0], [0.7, -0.7], [-0.99, 0.3]]) {
      let best = -1;
      let least = 0.5 ** 2;
      for (let i = 0; i < 2000; i++) {
        const d = (many[2 * i] - x) ** 2 + (many[2 * i + 1] - y) ** 2;
        if (d < least) [best, least] = [i, d];
      }
      expect(nearest(grid, x, y, 0.5)).toBe(best);
    }
  });

  it("are inside a drawn line by the even-odd rule", () => {
    expect(Array.from(within(square, [0, -1, 1, -1, 1, 1, 0, 1]))).toEqual([1, 2]);
    expect(within(square, [0.9, 0.9, 1, 0.9, 1, 1])).toHaveLength(0);
  });

  it("have a middle for each category, none for an empty one", () => {
    const middle = centres(square, Int32Array.of(0, 0, 0, -1), 2);
    expect([middle[0], middle[1]]).toEqual([0.5, -0.5]);
    expect(middle[2]).toBeNaN();
  });
});

describe("colours", () => {
  it("differ by colour or shape between the first 40 categories", () => {
    const looks = Array.from({ length: 40 }, (_, code) => `${categoryColour(code)} ${categoryShape(code)}`);
    expect(new Set(looks).size).toBe(40);
  });

  it("of numbers rise in lightness, as viridis does", () => {
    const light = ([r, g, b]: number[]): number => 0.2126 * r + 0.7152 * g + 0.0722 * b;
    const steps = Array.from({ length: 20 }, (_, i) => light(numberColour(i / 19)));
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
  });

  it("leave out the greatest percent of numbers, not all of them where most are nought", () => {
    expect(rangeOf(Float32Array.of(0, 0, 0, 5))).toEqual([0, 5]);
    expect(rangeOf(Float32Array.of(NaN, NaN))).toEqual([0, 1]);
  });

  it("are painted in the order of drawing, with chosen cells before others", () => {
    const look = new Uint8Array(8);
    const values = { name: "", kind: "category" as const, categories: ["a"], codes: Int32Array.of(-1, 0) };
    paint(look, Int32Array.of(1, 0), values, Uint8Array.of(0, 1));
    expect(Array.from(look.slice(0, 4))).toEqual([...categoryColour(0), 2]);
    expect(Array.from(look.slice(4))).toEqual([...NONE, 0]);
  });
});

describe("the pace of drawing", () => {
  it("falls where frames are slow, never below the fewest, and rises again", () => {
    let now = 0;
    const pace = new Pace(() => now);
    pace.begin();
    for (let i = 0; i < 40; i++) {
      now += 100;
      pace.frame(200_000);
    }
    now += 100;
    expect(pace.frame(200_000)).toBe(FEWEST);
    for (let i = 0; i < 60; i++) {
      now += 8;
      pace.frame(200_000);
    }
    expect(pace.frame(200_000)).toBe(200_000);
  });
});

describe("labels", () => {
  it("of long cell types are made short", () => {
    expect(short("CD8-positive, alpha-beta cytotoxic T cell")).toBe("CD8+ cytotoxic T cell");
    expect(short("CD4-positive, CD25-positive, alpha-beta regulatory T cell")).toBe("CD4+ CD25+ regulatory T cell");
  });
});
