/** What a change did: genes as a volcano and a table, the baselines' answer beside, and the files. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { download, get } from "../api";
import { jobs } from "../jobs";
import { Reproduced, Warnings } from "../parts";
import { Volcano } from "../plots/volcano";
import type { Made } from "../store";
import type { Baselines, ChangedGene } from "../types";
import { number } from "../words";

const TOP = 15;

export function ChangeResult({ made }: { made: Made }) {
  const genes = useSignal<ChangedGene[] | null>(null);
  const error = useSignal("");
  const baselines = useSignal<Baselines | null>(null);
  const job = jobs.value[made.job]?.job;
  useEffect(() => {
    get<{ genes: ChangedGene[] }>(`/v1/jobs/${made.job}/genes`).then(
      (found) => (genes.value = found.genes),
      (reason: Error) => (error.value = reason.message),
    );
  }, [made.job]);
  const ask = (): void => {
    get<Baselines>(`/v1/jobs/${made.job}/baselines`).then(
      (found) => (baselines.value = found),
      (reason: Error) => (error.value = reason.message),
    );
  };
  const top = [...(genes.value ?? [])].sort((a, b) => (a.q ?? 1) - (b.q ?? 1) || Math.abs(b.log2) - Math.abs(a.log2)).slice(0, TOP);
  return (
    <>
      <Warnings of={job?.warnings ?? []} />
      {error.value && <p class="error">{error.value}</p>}
      {genes.value && genes.value.length === 0 && <p>No gene changes.</p>}
      {genes.value && genes.value.length > 0 && (
        <>
          <Volcano genes={genes.value} title="Genes that change" left="lower after it" right="higher after it" />
          <div class="scroll" tabIndex={0} role="region" aria-label={`Genes most changed: ${made.title}`}>
            <table>
              <thead>
                <tr>
                  <th scope="col">Gene</th>
                  <th scope="col">log2 change</th>
                  <th scope="col">q</th>
                  {baselines.value?.ways.map((way) => (
                    <th scope="col" key={way.name} title={way.about}>
                      {way.name}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {top.map((each) => (
                  <tr key={each.gene}>
                    <th scope="row">{each.gene}</th>
                    <td>
                      {number(each.log2)}
                      {each.low !== undefined && each.high !== undefined && (
                        <small>
                          {" "}
                          ({number(each.low, 2)} to {number(each.high, 2)})
                        </small>
                      )}
                    </td>
                    <td>{number(each.q, 2)}</td>
                    {baselines.value?.ways.map((way) => (
                      <td key={way.name}>{changeOf(way.genes, each.gene)}</td>
                    ))}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
      {baselines.value ? <Ways baselines={baselines.value} genes={genes.value ?? []} /> : null}
      <p class="links">
        {!baselines.value && (
          <button type="button" class="plain" onClick={ask}>
            What the baselines say
          </button>
        )}
        <button type="button" class="plain" onClick={() => void download(`/v1/jobs/${made.job}/result.h5ad`, "changed.h5ad")}>
          Download h5ad
        </button>
        <button type="button" class="plain" onClick={() => void download(`/v1/jobs/${made.job}/result.csv`, "changed.csv")}>
          Download CSV
        </button>
      </p>
      <Reproduced job={made.job} name="changed" />
    </>
  );
}

/** What a way says of a gene; one that names no gene says that none changes. */
const changeOf = (genes: Baselines["ways"][number]["genes"], gene: string): string =>
  genes.length ? number(genes.find((each) => each.gene === gene)?.log2, 2) || "not told" : "0";

function Ways({ baselines, genes }: { baselines: Baselines; genes: ChangedGene[] }) {
  if (!baselines.ways.length) return <p class="quiet">No baseline can answer here{baselines.why ? `: ${baselines.why}` : "."}</p>;
  return (
    <ul class="ways" aria-label="Baselines">
      {baselines.ways.map((way) => {
        const r = correlation(genes, way.genes);
        return (
          <li key={way.name}>
            <strong>{way.name}</strong>
            {way.about ? `: ${way.about.replace(/\.$/, "")}.` : "."} {Number.isNaN(r) ? "" : `Correlation with the model's answer, over genes of both: ${number(r, 2)}.`}
          </li>
        );
      })}
    </ul>
  );
}

/** Pearson's, of the log2 changes of the genes that both have. */
export function correlation(a: { gene: string; log2: number }[], b: { gene: string; log2: number }[]): number {
  const of = new Map(b.map((each) => [each.gene, each.log2]));
  const pairs = a.filter((each) => of.has(each.gene)).map((each) => [each.log2, of.get(each.gene)!]);
  if (pairs.length < 3) return NaN;
  const mean = (k: number): number => pairs.reduce((sum, pair) => sum + pair[k], 0) / pairs.length;
  const [ma, mb] = [mean(0), mean(1)];
  let [sab, saa, sbb] = [0, 0, 0];
  for (const [x, y] of pairs) {
    sab += (x - ma) * (y - mb);
    saa += (x - ma) ** 2;
    sbb += (y - mb) ** 2;
  }
  return sab / Math.sqrt(saa * sbb);
}
