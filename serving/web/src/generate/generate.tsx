/** New cells of a kind: fields with the labels that the model saw; they land on the map. */

import { useSignal } from "@preact/signals";
import { stopper } from "../steps";
import { download, isStopped } from "../api";
import { JobFailed } from "../jobs";
import { make } from "../making";
import { Details, Reproduced } from "../parts";
import * as store from "../store";
import { count, words } from "../words";

const FIRST = ["organ", "cell_type", "organism"];
const LEAST_DEPTH = 100;

export function Generate() {
  const fields = useSignal<Record<string, string>>({});
  const n = useSignal(20);
  const seed = useSignal(0);
  const temperature = useSignal(1);
  const depth = useSignal("");
  const genes = useSignal("");
  const error = useSignal("");
  const known = store.about.value?.fields ?? {};
  const names = [...FIRST, ...Object.keys(known).filter((name) => !FIRST.includes(name))];
  const most = store.about.value?.limits.written ?? 10_000;

  const submit = (event: Event): void => {
    event.preventDefault();
    error.value = "";
    const given = Object.fromEntries(Object.entries(fields.value).filter(([, value]) => value.trim()));
    const held = readGenes(genes.value);
    if (held === null) {
      error.value = "Write genes to hold with their counts, as GATA1=8, HBB=20.";
      return;
    }
    const body: Record<string, unknown> = { model: store.model.value, fields: given, n: n.value, seed: seed.value, temperature: temperature.value };
    if (depth.value) body.depth = Math.max(LEAST_DEPTH, Number(depth.value));
    const isHeld = Object.keys(held).length > 0;
    if (isHeld) body.genes = held;
    const kind = given.cell_type ?? (given.organ ? `cells of ${given.organ}` : "cells of any kind");
    const title = `${kind}${isHeld ? " with genes held" : ""}, ${n.value} written`;
    make(isHeld ? "/v1/cells/complete" : "/v1/cells/generate", body, title, "generated").catch((reason: Error) => {
      if (isStopped(reason) || stopper().aborted) return;
      if (!(reason instanceof JobFailed && reason.job.state === "cancelled")) error.value = reason.message;
    });
  };
  return (
    <div class="panel-body">
      <form onSubmit={submit} aria-label="Write cells">
        <p>The model writes new cells, gene by gene, of the kind that you choose. What is left open it draws itself.</p>
        {names.slice(0, FIRST.length).map((name) => (
          <Field key={name} name={name} labels={known[name] ?? []} fields={fields} />
        ))}
        <Details title="More fields and options">
          {names.slice(FIRST.length).map((name) => (
            <Field key={name} name={name} labels={known[name] ?? []} fields={fields} />
          ))}
          <label>
            Genes to hold, with counts
            <input type="text" value={genes.value} placeholder="GATA1=8" onInput={(event) => (genes.value = event.currentTarget.value)} />
          </label>
          <label>
            Counts a cell (sequencing depth)
            <input type="number" min={LEAST_DEPTH} value={depth.value} placeholder="drawn" onInput={(event) => (depth.value = event.currentTarget.value)} />
          </label>
          <label>
            Variety (1 is as learnt; less is more typical)
            <input
              type="number"
              min={0}
              max={2}
              step={0.1}
              value={temperature.value}
              onInput={(event) => (temperature.value = Number(event.currentTarget.value))}
            />
          </label>
          <label>
            Seed (the same gives the same cells)
            <input type="number" min={0} value={seed.value} onInput={(event) => (seed.value = Number(event.currentTarget.value))} />
          </label>
        </Details>
        <label>
          How many
          <input type="number" min={1} max={most} required value={n.value} onInput={(event) => (n.value = Number(event.currentTarget.value))} />
        </label>
        {error.value && (
          <p class="error" role="alert">
            {error.value}
          </p>
        )}
        <button type="submit" class="primary">
          Write cells
        </button>
        {!store.layout.value && <p class="quiet">Open a file first to see where they land on its map; without one they can be downloaded.</p>}
      </form>
      <MadeList kind="generated" />
    </div>
  );
}

function Field({ name, labels, fields }: { name: string; labels: string[]; fields: { value: Record<string, string> } }) {
  return (
    <label>
      {words(name)}
      <input
        type="text"
        list={`labels-${name}`}
        autocomplete="off"
        value={fields.value[name] ?? ""}
        placeholder={labels.length ? `${labels.length} the model saw` : ""}
        onInput={(event) => (fields.value = { ...fields.value, [name]: event.currentTarget.value })}
      />
      <datalist id={`labels-${name}`}>
        {labels.map((label) => (
          <option key={label} value={label} />
        ))}
      </datalist>
    </label>
  );
}

/** Genes with counts from a text, or null where it can't be read. */
export function readGenes(text: string): Record<string, number> | null {
  const found: Record<string, number> = {};
  for (const part of text.split(/[,;\s]+/).filter(Boolean)) {
    const match = /^([^=]+)=(\d+)$/.exec(part);
    if (!match || Number(match[2]) < 1) return null;
    found[match[1]] = Number(match[2]);
  }
  return found;
}

export function MadeList({ kind }: { kind: store.Made["kind"] }) {
  const list = store.made.value.filter((each) => each.kind === kind);
  if (!list.length) return null;
  return (
    <section aria-label="Written cells">
      <h3>Written cells</h3>
      {list.map((each) => (
        <div key={each.job} class="made">
          <p>
            <strong>{each.title}</strong> <span class="quiet">{each.cells ? count(each.cells) : "being written"}</span>
          </p>
          {each.cells > 0 && (
            <>
              <p class="links">
                <button type="button" class="plain" onClick={() => void download(`/v1/jobs/${each.job}/result.h5ad`, `${kind}.h5ad`)}>
                  Download h5ad
                </button>
                <button type="button" class="plain" onClick={() => void download(`/v1/jobs/${each.job}/result.csv`, `${kind}.csv`)}>
                  Download CSV
                </button>
              </p>
              <Reproduced job={each.job} name={kind} />
            </>
          )}
        </div>
      ))}
    </section>
  );
}
