/** A perturbation of the chosen cells: which, what of it was learnt, where the cells move and which genes change. */

import { useSignal } from "@preact/signals";
import { isStopped } from "../api";
import { thin } from "../arrays";
import { ask } from "../chat/asking";
import { JobFailed, jobs } from "../jobs";
import { make } from "../making";
import { stopper } from "../steps";
import * as store from "../store";
import { cells, count } from "../words";
import { ChangeResult } from "./result";

type Way = "learnt" | "gene" | "edit";
const ACTIONS: Record<"gene" | "edit", [string, string][]> = {
  gene: [
    ["knockout", "knock out"],
    ["knockdown", "knock down"],
    ["overexpression", "raise (overexpress)"],
  ],
  edit: [
    ["deleted", "delete"],
    ["lowered", "lower"],
    ["raised", "raise"],
  ],
};

export function Change() {
  const way = useSignal<Way>("learnt");
  const learnt = useSignal("");
  const gene = useSignal("");
  const action = useSignal("");
  const n = useSignal(32);
  const error = useSignal("");
  const file = store.file.value;
  const chosen = store.selection.value;
  const known = (store.about.value?.perturbations ?? []).filter((label) => !/control/i.test(label));
  const now = way.value;

  const submit = (event: Event): void => {
    event.preventDefault();
    error.value = "";
    if (!file) return;
    const all = chosen?.rows ?? Int32Array.from({ length: file.cells }, (_, i) => i);
    const rows = thin(all, n.value);
    const name = now === "learnt" ? learnt.value.trim() : gene.value.trim();
    const how = now === "learnt" ? "" : action.value || ACTIONS[now][0][0];
    if (now === "edit") {
      // the answer with its shifts of labels is the chat's; it goes on there
      store.panel.value = "ask";
      const about = chosen ? "selection" : "all";
      void ask(`What would it mean for these cells if ${name} were ${how}?`, about, [{ task: "edit", genes: { [name]: how } }]);
      return;
    }
    const perturbation = now === "gene" ? { [name]: how } : name;
    const title = `${rows.length} cells after ${name}${how && ` ${how}`}`;
    make("/v1/cells/perturb", { file_id: file.id, model: store.model.value, rows, perturbation }, title, "changed", rows).catch((reason: Error) => {
      if (isStopped(reason) || stopper().aborted) return;
      if (!(reason instanceof JobFailed && reason.job.state === "cancelled")) error.value = reason.message;
    });
  };
  const list = store.made.value.filter((each) => each.kind === "changed");
  return (
    <div class="panel-body">
      <form onSubmit={submit} aria-label="Change cells">
        <p>
          {chosen
            ? `Changes the ${cells(chosen.rows.length)} that are chosen (${chosen.said}).`
            : "Changes cells of the whole file. To change some, choose them on the map, in the legend or in the table."}
        </p>
        <fieldset>
          <legend>How</legend>
          <Choice now={way} value="learnt" said="A perturbation that the model learnt from perturbed cells" />
          <Choice now={way} value="gene" said="Any gene, by the same way; told how far the model knows it" />
          <Choice now={way} value="edit" said="Edit a gene's counts and read what the model makes of it (no experiment was learnt); answered in Ask" />
        </fieldset>
        {now === "learnt" ? (
          <label>
            Perturbation
            <input
              type="text"
              list="perturbations"
              required
              autocomplete="off"
              placeholder={known[0] ?? "STAT1 knockout"}
              value={learnt.value}
              onInput={(event) => (learnt.value = event.currentTarget.value)}
            />
            <datalist id="perturbations">
              {known.map((label) => (
                <option key={label} value={label} />
              ))}
            </datalist>
          </label>
        ) : (
          <div class="row">
            <label>
              Gene
              <input type="text" required autocomplete="off" spellcheck={false} placeholder="STAT1" value={gene.value} onInput={(event) => (gene.value = event.currentTarget.value)} />
            </label>
            <label>
              Do
              <select value={action.value} onChange={(event) => (action.value = event.currentTarget.value)}>
                {ACTIONS[now].map(([name, said]) => (
                  <option key={name} value={name}>
                    {said}
                  </option>
                ))}
              </select>
            </label>
          </div>
        )}
        {now !== "edit" && (
          <label>
            Cells to write anew, at most (drawn evenly)
            <input type="number" min={4} max={500} required value={n.value} onInput={(event) => (n.value = Number(event.currentTarget.value))} />
          </label>
        )}
        {error.value && (
          <p class="error" role="alert">
            {error.value}
          </p>
        )}
        <button type="submit" class="primary" disabled={!file}>
          Show what changes
        </button>
        {!file && <p class="quiet">Open a file first: a perturbation changes its cells.</p>}
      </form>
      {[...list].reverse().map((each) => (
        <section key={each.job} class="made" aria-label={each.title}>
          <h3>{each.title}</h3>
          {each.cells ? <ChangeResult made={each} /> : <p class="quiet">{jobs.value[each.job]?.job.state === "failed" ? "Failed." : `At work on ${count(each.from.length)} cells.`}</p>}
        </section>
      ))}
    </div>
  );
}

function Choice({ now, value, said }: { now: { value: Way }; value: Way; said: string }) {
  return (
    <label class="choice">
      <input type="radio" name="way" checked={now.value === value} onChange={() => (now.value = value)} />
      {said}
    </label>
  );
}
