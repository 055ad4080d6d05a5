/** What went wrong, the banner while the server is away, and the question for a key. */

import { useEffect, useRef } from "preact/hooks";
import { connection, keyAsked } from "./api";
import * as store from "./store";

export function Notices() {
  return (
    <>
      <div role="status" aria-live="polite">
        {connection.value && <p class="banner away">{connection.value}</p>}
      </div>
      <div role="alert">
        {store.openError.value && (
          <p class="banner wrong">
            <span>{store.openError.value}</span>
            <button type="button" aria-label="Close this message" onClick={() => (store.openError.value = "")}>
              ×
            </button>
          </p>
        )}
      </div>
      {keyAsked.value && <KeyDialog />}
    </>
  );
}

function KeyDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby="key-title" onCancel={(event) => event.preventDefault()}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          keyAsked.value?.(input.current?.value ?? "");
        }}
      >
        <h2 id="key-title">This server needs a key</h2>
        <p>Whoever runs it gives you one. It is kept until you close this tab.</p>
        <label>
          Key
          <input ref={input} type="password" required autocomplete="off" />
        </label>
        <button type="submit" class="primary">
          Go on
        </button>
      </form>
    </dialog>
  );
}
