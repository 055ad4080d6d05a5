/** The clusters as a table: the map for those who can't see it, and the quickest way to choose a cluster. */

import { annotateAgain } from "../annotating";
import { download } from "../api";
import { jobs } from "../jobs";
import { Reproduced } from "../parts";
import { work } from "../keep";
import { chooseCluster } from "../selecting";
import * as store from "../store";
import { cells, count, percent } from "../words";
import { Verdict } from "../open/verdict";

export function Table() {
  const rows = store.clusterRows.value;
  const ticked = store.selection.value?.ticked;
  const all = work.value.steps.all;
  const state = jobs.value[all ?? work.value.steps.first ?? ""]?.job.state;
  const hasStopped = state === "cancelled" || state === "failed";
  if (!store.file.value) return <p class="panel-body quiet">Open a file to see its clusters.</p>;
  return (
    <div class="panel-body">
      <section aria-label="Clusters with the model's answers">
        <p>
          {store.answeredAll.value
            ? "The commonest answer of each cluster, over all of its cells."
            : "The commonest answer of each cluster so far: some of its cells were asked about first, the others follow."}
        </p>
        <div class="scroll tall" tabIndex={0} role="region" aria-label="Table of clusters">
          <table>
            <thead>
              <tr>
                <th scope="col">Cluster</th>
                <th scope="col">Cells</th>
                <th scope="col" class="text">
                  The model's answer
                </th>
                <th scope="col">
                  <abbr title="share of the asked cells with that answer">Agree</abbr>
                </th>
                <th scope="col">
                  <abbr title="mean probability of that answer">Prob.</abbr>
                </th>
                <th scope="col">
                  <abbr title="cells that were asked about">Asked</abbr>
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <tr key={row.code} aria-selected={ticked?.of === "cluster" && ticked.codes.includes(row.code)}>
                  <th scope="row">
                    <button type="button" class="plain" aria-label={`Choose ${row.name}`} onClick={() => chooseCluster(row.code)}>
                      {row.name.replace("cluster ", "")}
                    </button>
                  </th>
                  <td>{count(row.cells)}</td>
                  <td class="text">{row.answer || "not yet"}</td>
                  <td>{row.answer && percent(row.share)}</td>
                  <td>{percent(row.probability)}</td>
                  <td>{count(row.answered)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
      <section aria-label="Downloads">
        <h3>Downloads</h3>
        {store.answeredAll.value && all ? (
          <>
            <p class="links">
              <button type="button" onClick={() => void download(`/v1/jobs/${all}/result.h5ad`, "annotated.h5ad")}>
                Annotated cells (h5ad)
              </button>
              <button type="button" onClick={() => void download(`/v1/jobs/${all}/result.csv`, "annotated.csv")}>
                Answers (CSV)
              </button>
            </p>
            <Reproduced job={all} name="annotate" />
          </>
        ) : (
          <p class="quiet">All {cells(store.file.value.cells)} with their answers, as h5ad and CSV, when the model is through.</p>
        )}
        {hasStopped && (
          <button type="button" onClick={() => void annotateAgain()}>
            Annotate all cells
          </button>
        )}
      </section>
      <Verdict file={store.file.value} />
    </div>
  );
}
