/** What the doctor says of a file, in plain words; the whole of it below. */

import type { CellFile, Finding } from "../types";
import { cells, count } from "../words";

const SAID: Record<string, string> = {
  ok: "Good to go: nothing stands in the way.",
  warning: "Usable. Some things are worth knowing.",
  error: "Something is wrong; answers may not be what they seem.",
};
const SIGNS: Record<string, string> = { ok: "✓", warning: "!", error: "✕" };
const FIRST = ["values", "genes", "organism", "mitochondria"];

export function Verdict({ file }: { file: CellFile }) {
  const findings = file.verdict.findings ?? [];
  // whether it fits a repository's schema is of no matter to the model
  const matters = findings.filter((each) => each.question !== "cellxgene");
  const worst = matters.some((each) => each.verdict === "error") ? "error" : matters.some((each) => each.verdict === "warning") ? "warning" : "ok";
  const bad = matters.filter((each) => each.verdict !== "ok");
  const good = FIRST.flatMap((question) => matters.filter((each) => each.question === question && each.verdict === "ok"));
  return (
    <section class="verdict" aria-label="What is in the file">
      <h3>{file.filename}</h3>
      <p>
        <span class="sign" data-verdict={worst} aria-hidden="true">
          {SIGNS[worst]}
        </span>{" "}
        {cells(file.cells)}, {count(file.genes)} genes. {SAID[worst]}
      </p>
      <List findings={[...bad, ...good]} />
      <details>
        <summary>All {findings.length} findings</summary>
        <List findings={findings} />
      </details>
    </section>
  );
}

function List({ findings }: { findings: Finding[] }) {
  return (
    <ul class="findings">
      {findings.map((each) => (
        <li key={each.question} data-verdict={each.verdict}>
          <span class="sign" data-verdict={each.verdict} role="img" aria-label={each.verdict === "ok" ? "good" : each.verdict}>
            {SIGNS[each.verdict]}
          </span>
          <span>
            <strong>{each.question}</strong>: {each.found}
            {each.fix && <em> To mend it: {each.fix}.</em>}
          </span>
        </li>
      ))}
    </ul>
  );
}
