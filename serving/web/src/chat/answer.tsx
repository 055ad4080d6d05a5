/** An answer: its text, how the question was read (and that corrected), plots, warnings, the code that gives the same, and all of it to open. */

import { useSignal } from "@preact/signals";
import { download } from "../api";
import { Code, Details } from "../parts";
import { Bars } from "../plots/bars";
import type { Exchange } from "../store";
import type { Answer, BarPlot } from "../types";
import { percent, taskWords, words } from "../words";
import { askAgain } from "./asking";
import { RequestForm } from "./request_form";

const UNSURE = 0.5;

export function AnswerView({ exchange, answer, place }: { exchange: Exchange; answer: Answer; place: number }) {
  const isEditing = useSignal(false);
  const sure = answer.probability;
  const isRefused = answer.results.some((each) => !each.done);
  return (
    <div class="answer">
      <p class={isRefused ? "said refused" : "said"}>{answer.text}</p>
      {(answer.notes ?? []).map((each) => (
        <p key={each} class="quiet">
          {each}
        </p>
      ))}
      {(answer.warnings ?? []).map((each) => (
        <p key={each} class="warning">
          {each}
        </p>
      ))}
      <div class="plots">
        {(answer.plots ?? []).map((plot) => (
          <Bars key={`${plot.of} ${plot.value}`} plot={plot} title={titleOf(plot)} />
        ))}
      </div>
      <div class="reading">
        <p>
          Understood as: <ReadAs answer={answer} />
          {sure !== undefined && sure < 1 && !exchange.corrected && (
            <span class={sure < UNSURE ? "unsure" : "quiet"}>
              {" "}
              {sure < UNSURE ? `unsure, ${percent(sure)}: correct it if it is wrong` : `(${percent(sure)} sure)`}
            </span>
          )}
          {answer.leans_on_the_question_before && <span class="quiet"> It goes on from the question before.</span>}
        </p>
        <button type="button" aria-expanded={isEditing.value} onClick={() => (isEditing.value = !isEditing.value)}>
          Correct
        </button>
      </div>
      {isEditing.value && (
        <RequestForm
          requests={answer.request}
          send={(requests) => {
            isEditing.value = false;
            void askAgain(exchange, requests);
          }}
        />
      )}
      {answer.reproduce && (
        <Details title="Python and command">
          <Code title="Python" text={answer.reproduce.python} name={`answer_${place + 1}.py`} />
          <Code title="Command" text={answer.reproduce.command} />
        </Details>
      )}
      {answer.result && (
        <p class="links">
          <button type="button" class="plain" onClick={() => void download(answer.result!, `answer_${place + 1}.json`)}>
            Every number of this answer (JSON)
          </button>
          <button
            type="button"
            class="plain"
            onClick={() => void download(answer.result!.replace(/\.json$/, ".h5ad"), `answer_${place + 1}.h5ad`)}
          >
            Its cells (h5ad)
          </button>
        </p>
      )}
    </div>
  );
}

function ReadAs({ answer }: { answer: Answer }) {
  return (
    <>
      {answer.request.map((each, place) => {
        const { task, ...rest } = each;
        const said = Object.entries(rest).map(([name, value]) => `${words(name)} ${typeof value === "object" ? spelled(value) : String(value)}`);
        return (
          <span key={place}>
            {place > 0 && "; then "}
            <strong>{taskWords(task)}</strong>
            {said.length > 0 && `: ${said.join(", ")}`}
          </span>
        );
      })}
    </>
  );
}

function spelled(value: unknown): string {
  if (Array.isArray(value)) return value.join(", ");
  return Object.entries(value as Record<string, unknown>)
    .map(([name, said]) => (said === null || said === undefined ? name : `${name} ${String(said)}`))
    .join(", ");
}

const UNITS: Record<string, string> = {
  share: "share of cells",
  p: "probability",
  log2: "log2 change",
  nats: "for (right) and against (left), in nats a cell",
  shift: "shift",
};

function titleOf(plot: BarPlot): string {
  const what = plot.of === "speaks_for" ? "Genes for and against" : plot.by === "gene" ? "Genes" : "Labels";
  return `${what}: ${UNITS[plot.value] ?? words(plot.value)}`;
}
