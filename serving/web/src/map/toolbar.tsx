/** Above the map: what it is coloured by, which layout, the tools, and what is chosen. */

import { useRef } from "preact/hooks";
import { colourBy } from "../colouring";
import { mapEmbedding, show } from "../opening";
import { chooseRows, invert } from "../selecting";
import * as store from "../store";
import { work } from "../keep";
import { cells, words } from "../words";
import { areShown } from "./labels";
import { tool, view, type Tool } from "./map";

const TOOLS: [Tool, string, string][] = [
  ["pan", "Move", "Drag the map; click a cell to choose it"],
  ["lasso", "Lasso", "Draw around cells to choose them; with Shift, more of them"],
  ["box", "Box", "Draw a box to choose cells; with Shift, more of them"],
];
const LAYOUTS: [store.LayoutName, string][] = [
  ["pca", "PCA"],
  ["umap", "UMAP"],
  ["embedding", "UMAP of the model's embedding"],
];

export function Toolbar() {
  const { colouring } = store;
  const gene = useRef<HTMLInputElement>(null);
  const now = colouring.value;
  const value = now.by === "obs" ? `obs:${now.name}` : now.by;
  const onChange = (text: string): void => {
    if (text.startsWith("obs:")) colourBy({ by: "obs", name: text.slice(4) });
    else if (text === "gene") gene.current?.focus();
    else colourBy({ by: text as "cluster" | "answer" | "probability" });
  };
  return (
    <div class="toolbar" role="region" aria-label="Map controls">
      <label>
        Colour by
        <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
          <option value="cluster">cluster</option>
          <option value="answer">the model's answer</option>
          <option value="probability">probability of the answer</option>
          <option value="gene">{now.by === "gene" ? `gene ${now.name}` : "a gene (type it beside)"}</option>
          <optgroup label="columns of the file">
            {Object.keys(store.file.value?.obs ?? {}).map((name) => (
              <option key={name} value={`obs:${name}`}>
                {words(name)}
              </option>
            ))}
          </optgroup>
        </select>
      </label>
      <form
        class="gene"
        onSubmit={(event) => {
          event.preventDefault();
          const name = gene.current?.value.trim();
          if (name) colourBy({ by: "gene", name });
        }}
      >
        <label>
          Gene
          <input ref={gene} type="text" placeholder="CD3D" autocomplete="off" spellcheck={false} size={9} />
        </label>
        <button type="submit">Colour</button>
      </form>
      <Layouts />
      <div class="group" role="group" aria-label="Tool">
        {TOOLS.map(([name, said, what]) => (
          <button type="button" key={name} title={what} aria-pressed={tool.value === name} onClick={() => (tool.value = name)}>
            {said}
          </button>
        ))}
      </div>
      <div class="group" role="group" aria-label="Zoom">
        <button type="button" aria-label="Zoom in" title="Zoom in (+)" onClick={() => view.value?.zoom(0.5)}>
          +
        </button>
        <button type="button" aria-label="Zoom out" title="Zoom out (-)" onClick={() => view.value?.zoom(-0.5)}>
          −
        </button>
        <button type="button" aria-label="Show all" title="Show all (0)" onClick={() => view.value?.fit()}>
          All
        </button>
      </div>
      <label class="check">
        <input type="checkbox" checked={areShown.value} onChange={(event) => (areShown.value = event.currentTarget.checked)} />
        Labels
      </label>
      <Chosen />
    </div>
  );
}

function Layouts() {
  const isAsked = work.value.steps.embed !== undefined;
  return (
    <label>
      Layout
      <select
        value={store.layoutName.value}
        onChange={(event) => {
          const name = event.currentTarget.value as store.LayoutName;
          if (store.layouts.value[name]) show(name);
          else if (name === "embedding" && !isAsked) void mapEmbedding();
          event.currentTarget.value = store.layoutName.value;
        }}
      >
        {LAYOUTS.map(([name, said]) => (
          <option key={name} value={name} disabled={!store.layouts.value[name] && (name !== "embedding" || isAsked)}>
            {said}
            {store.layouts.value[name] ? "" : name === "embedding" && !isAsked ? " (takes a while)" : " (on its way)"}
          </option>
        ))}
      </select>
    </label>
  );
}

function Chosen() {
  const chosen = store.selection.value;
  return (
    <div class="chosen">
      <span class="chosen-said" data-testid="selection">
        {chosen ? `${cells(chosen.rows.length)} chosen: ${chosen.said}` : "No cells chosen"}
      </span>
      <button type="button" onClick={invert} disabled={!chosen}>
        Invert
      </button>
      <button type="button" onClick={() => chooseRows(null, "")} disabled={!chosen}>
        Clear
      </button>
    </div>
  );
}
