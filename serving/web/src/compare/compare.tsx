/** Two sets of cells beside each other: which genes differ. Sets are what is chosen, clusters, kept sets, and cells that the model wrote. */

import { useSignal } from "@preact/signals";
import { download, isStopped } from "../api";
import { JobFailed } from "../jobs";
import { keep } from "../keep";
import { Reproduced } from "../parts";
import { Dots } from "../plots/dots";
import { Volcano } from "../plots/volcano";
import * as store from "../store";
import type { ComparedGene, CompareResult } from "../types";
import { cells, count, number, percent } from "../words";
import { compare } from "./comparing";
import { setsOf, type CellSet } from "./sets";

const TOP = 25;
const DOTS = 16;

export function Compare() {
  const a = useSignal("");
  const b = useSignal("");
  const error = useSignal("");
  const isBusy = useSignal(false);
  const sets = setsOf();
  const setA = sets.find((each) => each.id === a.value) ?? sets[0];
  const setB = sets.find((each) => each.id === b.value && each.id !== setA?.id) ?? sets.find((each) => each.id !== setA?.id);

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (!setA || !setB || isBusy.value) return;
    error.value = "";
    isBusy.value = true;
    try {
      await compare(setA, setB);
    } catch (reason) {
      const isCancelled = isStopped(reason) || (reason instanceof JobFailed && reason.job.state === "cancelled");
      if (!isCancelled) error.value = (reason as Error).message;
    } finally {
      isBusy.value = false;
    }
  };
  return (
    <div class="panel-body">
      <form onSubmit={(event) => void submit(event)} aria-label="Compare two sets">
        <p>Genes that differ between two sets of cells. Choose cells on the map and keep them as a set, or take clusters and written cells.</p>
        <KeepSet />
        <Pick label="Set A" sets={sets} value={setA} choose={(id) => (a.value = id)} />
        <Pick label="Set B" sets={sets.filter((each) => each.id !== setA?.id)} value={setB} choose={(id) => (b.value = id)} />
        {error.value && (
          <p class="error" role="alert">
            {error.value}
          </p>
        )}
        <button type="submit" class="primary" disabled={!setA || !setB || isBusy.value}>
          Compare
        </button>
        {sets.length < 2 && <p class="quiet">Needed are two sets: open a file, or write cells.</p>}
      </form>
      {store.compared.value && <Result {...store.compared.value} />}
    </div>
  );
}

function Pick({ label, sets, value, choose }: { label: string; sets: CellSet[]; value?: CellSet; choose: (id: string) => void }) {
  const groups = [...new Set(sets.map((each) => each.group))];
  return (
    <label>
      {label}
      <select value={value?.id ?? ""} onChange={(event) => choose(event.currentTarget.value)}>
        {groups.map((group) => (
          <optgroup key={group} label={group}>
            {sets
              .filter((each) => each.group === group)
              .map((each) => (
                <option key={each.id} value={each.id}>
                  {each.name} ({count(each.size)})
                </option>
              ))}
          </optgroup>
        ))}
      </select>
    </label>
  );
}

function KeepSet() {
  const chosen = store.selection.value;
  const name = useSignal("");
  const keepIt = (): void => {
    if (!chosen) return;
    const called = name.value.trim() || `set ${store.keptSets.value.length + 1} (${chosen.said})`;
    store.keptSets.value = [...store.keptSets.value, { name: called, rows: Array.from(chosen.rows) }];
    keep({ keptSets: store.keptSets.value });
    name.value = "";
  };
  if (!chosen) return null;
  return (
    <div class="row">
      <label>
        Keep the {cells(chosen.rows.length)} chosen as
        <input type="text" value={name.value} placeholder="a name" onInput={(event) => (name.value = event.currentTarget.value)} />
      </label>
      <button type="button" onClick={keepIt}>
        Keep set
      </button>
    </div>
  );
}

function Result({ job, names, result }: { job: string; names: [string, string]; result: CompareResult }) {
  const sure = result.genes.filter((each) => each.q < 0.05);
  const top = [...result.genes].sort((x, y) => x.q - y.q || Math.abs(y.log2) - Math.abs(x.log2));
  const half = (sign: number): ComparedGene[] => top.filter((each) => each.log2 * sign > 0).slice(0, DOTS / 2);
  return (
    <section aria-label="Comparison" class="made">
      <h3>
        {names[0]} and {names[1]}
      </h3>
      <p>
        {cells(result.cells[0])} against {cells(result.cells[1])}; {count(sure.length)} genes differ (q below 0.05).
      </p>
      <Volcano genes={result.genes} title="Volcano" left="higher in A" right="higher in B" />
      <Dots genes={[...half(-1), ...half(1)]} names={names} />
      <div class="scroll" tabIndex={0} role="region" aria-label="Genes that differ">
        <table>
          <thead>
            <tr>
              <th scope="col">Gene</th>
              <th scope="col">log2, B over A</th>
              <th scope="col">q</th>
              <th scope="col">in A</th>
              <th scope="col">in B</th>
            </tr>
          </thead>
          <tbody>
            {top.slice(0, TOP).map((each) => (
              <tr key={each.gene}>
                <th scope="row">{each.gene}</th>
                <td>{number(each.log2)}</td>
                <td>{number(each.q, 2)}</td>
                <td>{percent(each.share_a)}</td>
                <td>{percent(each.share_b)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="links">
        <button type="button" class="plain" onClick={() => void download(`/v1/jobs/${job}/result.csv`, "comparison.csv")}>
          Download CSV
        </button>
      </p>
      <Reproduced job={job} name="comparison" />
    </section>
  );
}
