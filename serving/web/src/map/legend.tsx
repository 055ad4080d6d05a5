/** What the colours mean: categories with boxes to choose their cells by, or the scale of a number; and the layers of written cells. */

import { useSignal } from "@preact/signals";
import { change, remove } from "../making";
import { tick, tickAll } from "../selecting";
import { isDark } from "../theme";
import * as store from "../store";
import type { Categories, Numbers } from "../types";
import { cells, count, number, words } from "../words";
import { categoryColour, categoryShape, css, numberColour, rangeOf, type Rgb } from "./palette";
import { madeColour, madeShape } from "./scene";

const MOST = 60;

export function Legend() {
  const values = store.coloured.value;
  const { by } = store.colouring.value;
  const isFetching = store.isFetching.value;
  const title = isFetching ? "" : by === "cluster" ? "Clusters" : by === "answer" ? "The model's answers" : words(values?.name ?? "");
  return (
    <section class="legend" aria-label="Legend">
      <h2>{title || "Legend"}</h2>
      {store.colourError.value && <p class="error">{store.colourError.value}</p>}
      {isFetching && !store.colourError.value && <p class="quiet">Fetching the values…</p>}
      {!isFetching && !values && <p class="quiet">Not there yet.</p>}
      {!isFetching && values?.kind === "category" && <Named values={values} />}
      {!isFetching && values?.kind === "number" && <Scale values={values} />}
      <Layers />
    </section>
  );
}

export function Mark({ colour, shape }: { colour: Rgb; shape: number }) {
  const paths = ["M8 2a6 6 0 1 0 .01 0z", "M3 3h10v10H3z", "M8 1l7 7-7 7-7-7z", "M8 2l7 12H1z", "M6 1h4v5h5v4h-5v5H6v-5H1V6h5z"];
  return (
    <svg class="mark" viewBox="0 0 16 16" aria-hidden="true">
      <path d={paths[shape]} fill={css(colour)} />
    </svg>
  );
}

function Named({ values }: { values: Categories }) {
  const sought = useSignal("");
  const sizes = new Int32Array(values.categories.length);
  let none = 0;
  for (let i = 0; i < values.codes.length; i++) {
    if (values.codes[i] < 0) none++;
    else sizes[values.codes[i]]++;
  }
  const ticked = store.selection.value?.ticked;
  const codes = ticked?.of === values.name ? ticked.codes : [];
  const rows = store.clusterRows.value;
  const isCluster = values === store.clusters.value;
  const found = values.categories
    .map((name, code) => ({ name, code, cells: sizes[code], note: isCluster ? (rows[code]?.answer ?? "") : "" }))
    .filter((each) => `${each.name} ${each.note}`.toLowerCase().includes(sought.value.toLowerCase()))
    .sort((a, b) => (isCluster ? a.code - b.code : b.cells - a.cells));
  return (
    <>
      {values.categories.length > 12 && (
        <input
          type="search"
          aria-label="Find in the legend"
          placeholder={`Find among ${values.categories.length}`}
          value={sought.value}
          onInput={(event) => (sought.value = event.currentTarget.value)}
        />
      )}
      <ul>
        {found.slice(0, MOST).map((each) => (
          <li key={each.code}>
            <label>
              <input type="checkbox" checked={codes.includes(each.code)} onChange={() => tick(each.code)} />
              <Mark colour={categoryColour(each.code, isDark.value)} shape={categoryShape(each.code)} />
              <span class="legend-name">
                {each.name}
                {each.note && <small>{each.note}</small>}
              </span>
              <span class="legend-count">{count(each.cells)}</span>
            </label>
          </li>
        ))}
      </ul>
      {found.length > MOST && <p class="quiet">{found.length - MOST} more; find them by name.</p>}
      {none > 0 && <p class="quiet">{cells(none)} without a value, in grey.</p>}
      {codes.length > 0 && (
        <button type="button" class="plain" onClick={() => tickAll([])}>
          Untick all
        </button>
      )}
    </>
  );
}

function Scale({ values }: { values: Numbers }) {
  const [low, high] = rangeOf(values.values);
  const stops = Array.from({ length: 24 }, (_, i) => i / 23);
  return (
    <figure class="scale">
      <svg viewBox="0 0 240 12" preserveAspectRatio="none" role="img" aria-label={`From ${number(low)} (dark) to ${number(high)} (light)`}>
        {stops.map((share, i) => (
          <rect key={i} x={i * 10} y="0" width="10.5" height="12" fill={css(numberColour(share))} />
        ))}
      </svg>
      <figcaption>
        <span>{number(low)}</span>
        <span>{store.colouring.value.by === "gene" ? "log1p of counts per 10,000" : ""}</span>
        <span>{number(high)}</span>
      </figcaption>
    </figure>
  );
}

function Layers() {
  if (!store.made.value.length) return null;
  return (
    <div class="layers" role="group" aria-labelledby="layers-title">
      <h3 id="layers-title">Cells written by the model</h3>
      <ul>
        {store.made.value.map((each, place) => (
          <li key={each.job}>
            <label>
              <input type="checkbox" checked={each.isShown} onChange={() => change(each.job, { isShown: !each.isShown })} />
              <Mark colour={madeColour(place)} shape={madeShape(place)} />
              <span class="legend-name">{each.title}</span>
              <span class="legend-count">{each.cells ? count(each.cells) : "…"}</span>
            </label>
            <button type="button" class="plain" aria-label={`Remove ${each.title} from the map`} onClick={() => remove(each.job)}>
              ×
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
