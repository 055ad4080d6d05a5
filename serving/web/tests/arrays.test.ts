import { describe, expect, it } from "vitest";
import { floats, integers, mergeCategories, noCategories, packRows, shuffled, someOfEach, thin, unpack, unpackRows } from "../src/arrays";
import type { Categories } from "../src/types";
import { packed } from "./fixture";

describe("arrays of the server", () => {
  it("come back as they were packed", () => {
    expect(Array.from(floats(packed([1.5, -2, 0], "float32")))).toEqual([1.5, -2, 0]);
    expect(Array.from(integers(packed([3, -1, 70000], "int32")))).toEqual([3, -1, 70000]);
  });

  it("are numbers where the kind is number", () => {
    const values = unpack({ name: "CD3D", kind: "number", values: packed([0.5, NaN], "float32") });
    expect(values.kind === "number" && Number.isNaN(values.values[1])).toBe(true);
  });
});

describe("answers that come in pieces", () => {
  it("are put at their rows, with categories joined by name", () => {
    const part = (names: string[], codes: number[]): Categories => ({ name: "x", kind: "category", categories: names, codes: Int32Array.from(codes) });
    let all = noCategories("answers", 4);
    all = mergeCategories(all, part(["B cell"], [0, 0]), Int32Array.of(3, 1));
    all = mergeCategories(all, part(["T cell", "B cell"], [0, 1]), Int32Array.of(0, 2));
    expect(Array.from(all.codes, (code) => all.categories[code])).toEqual(["T cell", "B cell", "B cell", "B cell"]);
  });

  it("leave cells that have none without one", () => {
    const all = mergeCategories(noCategories("answers", 2), { name: "", kind: "category", categories: [], codes: Int32Array.of(-1) }, Int32Array.of(1));
    expect(Array.from(all.codes)).toEqual([-1, -1]);
  });
});

describe("rows", () => {
  it("survive the browser's storage", () => {
    const rows = [0, 7, 8, 1999];
    expect(Array.from(unpackRows(packRows(rows, 2000)))).toEqual(rows);
  });

  it("are shuffled the same each time, each once", () => {
    expect(Array.from(shuffled(50))).toEqual(Array.from(shuffled(50)));
    expect(Array.from(shuffled(50)).sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
  });

  it("of each cluster are at most so many, and all of a small one", () => {
    const codes = Int32Array.from({ length: 100 }, (_, i) => (i < 97 ? 0 : 1));
    const rows = someOfEach({ name: "", kind: "category", categories: ["0", "1"], codes }, 8);
    expect(rows.filter((row) => codes[row] === 0)).toHaveLength(8);
    expect(rows.filter((row) => codes[row] === 1)).toEqual([97, 98, 99]);
  });

  it("are thinned evenly", () => {
    expect(thin([0, 1, 2, 3, 4, 5, 6, 7], 4)).toEqual([0, 2, 4, 6]);
    expect(thin([5, 6], 4)).toEqual([5, 6]);
  });
});
