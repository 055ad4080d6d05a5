/** The beginning: drop a file, open embedded data, or go on with the work of before. */

import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { lastWork, workOfTab } from "../keep";
import { cancelOpening, openExample, openFile, resume } from "../opening";
import * as store from "../store";
import { cells, percent } from "../words";

export function Start() {
  const isOver = useSignal(false);
  const input = useRef<HTMLInputElement>(null);
  const last = workOfTab() ? null : lastWork();
  const sending = store.opening.value;
  if (sending) {
    return (
      <div class="start">
        <div class="sending">
          <p>
            {sending.share > 0 && sending.share < 1 ? `Sending ${sending.name}, ${percent(sending.share)}` : `Reading ${sending.name} and looking at what is in it`}
          </p>
          <progress aria-label={`Opening ${sending.name}`} value={sending.share > 0 && sending.share < 1 ? sending.share : undefined} />
          <button type="button" onClick={cancelOpening}>
            Cancel
          </button>
        </div>
      </div>
    );
  }
  return (
    <div
      class="start"
      data-over={isOver.value}
      onDragOver={(event) => {
        event.preventDefault();
        isOver.value = true;
      }}
      onDragLeave={() => (isOver.value = false)}
      onDrop={(event) => {
        event.preventDefault();
        isOver.value = false;
        const given = event.dataTransfer?.files[0];
        if (given) void openFile(given);
      }}
    >
      <div class="drop">
        <h1>See your cells, and ask about them</h1>
        <p>Drop an .h5ad file of single cells here: raw counts, human or mouse. It stays on this server.</p>
        <input
          ref={input}
          id="file"
          type="file"
          accept=".h5ad"
          class="hidden"
          aria-label="File of cells (.h5ad)"
          tabIndex={-1}
          onChange={(event) => {
            const given = event.currentTarget.files?.[0];
            if (given) void openFile(given);
            event.currentTarget.value = "";
          }}
        />
        <button type="button" class="primary" onClick={() => input.current?.click()}>
          Choose a file
        </button>
        {last?.file && (
          <button type="button" onClick={() => void resume(last)}>
            Go on with {last.filename}
          </button>
        )}
      </div>
      <section aria-label="Embedded data" class="examples">
        <h2>Or open data that came with it</h2>
        <ul>
          {(store.about.value?.examples ?? []).map((each) => (
            <li key={each.name}>
              <button type="button" class="example" aria-label={`Open ${each.title}`} onClick={() => void openExample(each.name)}>
                <strong>{each.title}</strong>
                <span>{each.about}</span>
                <small>{cells(each.cells)}</small>
              </button>
            </li>
          ))}
        </ul>
      </section>
    </div>
  );
}
