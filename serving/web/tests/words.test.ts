import { beforeEach, describe, expect, it } from "vitest";
import { fieldsOf, readField, spellField } from "../src/chat/request_text";
import { correlation } from "../src/change/result";
import { readGenes } from "../src/generate/generate";
import { keep, lastWork, noWork, work, workOfTab } from "../src/keep";
import { addRows, chooseRows, invert, tick } from "../src/selecting";
import * as store from "../src/store";
import { number, percent } from "../src/words";
import type { CellFile } from "../src/types";

describe("numbers in words", () => {
  it("never say all where it is nearly all", () => {
    expect(percent(0.998)).toBe("over 99 %");
    expect(percent(1)).toBe("100 %");
  });
  it("are short", () => {
    expect(number(0.000012)).toBe("1.2e-5");
    expect(number(1.23456)).toBe("1.23");
  });
});

describe("a request", () => {
  it("is spelled and read back as it was", () => {
    for (const [name, value] of [["genes", { STAT1: "deleted", GATA1: 8, CD3D: null }], ["asked", ["organ", "sex"]], ["number", 20], ["organ", "blood"]] as const) {
      expect(readField(name, spellField(value))).toEqual(value);
    }
  });
  it("takes the fields of its task", () => {
    expect(fieldsOf("generate", ["organ"])).toEqual(["organ", "number"]);
    expect(fieldsOf("explain_shift", ["organ"])).toEqual([]);
  });
  it("for genes to hold needs counts", () => {
    expect(readGenes("GATA1=8, HBB=20")).toEqual({ GATA1: 8, HBB: 20 });
    expect(readGenes("GATA1")).toBeNull();
    expect(readGenes("")).toEqual({});
  });
});

describe("what is chosen", () => {
  beforeEach(() => {
    store.file.value = { id: "f", cells: 5 } as CellFile;
    store.clusters.value = { name: "cluster", kind: "category", categories: ["a", "b"], codes: Int32Array.of(0, 0, 1, 1, -1) };
    store.colouring.value = { by: "cluster" };
    chooseRows(null, "");
  });
  it("is the union of ticked categories", () => {
    tick(1);
    expect(Array.from(store.selection.value!.rows)).toEqual([2, 3]);
    tick(0);
    expect(Array.from(store.selection.value!.rows)).toEqual([0, 1, 2, 3]);
    tick(1);
    expect(Array.from(store.selection.value!.rows)).toEqual([0, 1]);
  });
  it("is added to, taken from, inverted", () => {
    chooseRows(Int32Array.of(0), "cell 1");
    addRows(Int32Array.of(4), "cell 5");
    expect(Array.from(store.selection.value!.rows)).toEqual([0, 4]);
    addRows(Int32Array.of(4), "cell 5");
    expect(Array.from(store.selection.value!.rows)).toEqual([0]);
    invert();
    expect(Array.from(store.selection.value!.rows)).toEqual([1, 2, 3, 4]);
  });
  it("is kept for a reload", () => {
    tick(1);
    expect(workOfTab()?.selection?.ticked).toEqual({ of: "cluster", codes: [1] });
  });
});

describe("clusters", () => {
  it("have the answer of most of their cells, as far as asked", () => {
    const groups = { name: "cluster", kind: "category" as const, categories: ["a", "b"], codes: Int32Array.of(0, 0, 0, 1) };
    const given = { name: "", kind: "category" as const, categories: ["T", "B"], codes: Int32Array.of(1, 1, 0, -1) };
    const sure = { name: "", kind: "number" as const, values: Float32Array.of(0.5, 1, 0.25, NaN) };
    const [a, b] = store.summarize(groups, given, sure);
    expect(a).toMatchObject({ answer: "B", answered: 3, share: 2 / 3, probability: 0.75 });
    expect(b).toMatchObject({ answer: "", answered: 0, cells: 1 });
  });
});

describe("work that is kept", () => {
  it("is there after a reload, with what is new in this version", () => {
    work.value = noWork();
    keep({ file: "file-1", steps: { pca: "job-1" } });
    expect(workOfTab()?.steps).toEqual({ pca: "job-1" });
    expect(lastWork()?.thread).toEqual([]);
  });
});

describe("baselines", () => {
  it("are set beside the model's answer by the genes of both", () => {
    const a = [1, 2, 3, 4].map((log2, k) => ({ gene: `g${k}`, log2 }));
    expect(correlation(a, a)).toBeCloseTo(1);
    expect(correlation(a, a.slice(0, 2))).toBeNaN();
  });
});
