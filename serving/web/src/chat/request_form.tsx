/** How a question was read, to be corrected: as a form of names and values, or as JSON. */

import { useSignal } from "@preact/signals";
import { useId } from "preact/hooks";
import * as store from "../store";
import type { PlainRequest } from "../types";
import { TASK_NAMES, taskWords, words } from "../words";
import { fieldsOf, readField, spellField } from "./request_text";

export function RequestForm({ requests, send }: { requests: PlainRequest[]; send: (requests: PlainRequest[]) => void }) {
  const now = useSignal(requests);
  const json = useSignal<string | null>(null);
  const error = useSignal("");
  const id = useId();

  const put = (place: number, request: PlainRequest): void => {
    now.value = now.value.map((each, k) => (k === place ? request : each));
  };
  const submit = (event: Event): void => {
    event.preventDefault();
    if (json.value === null) return send(now.value);
    try {
      const given = JSON.parse(json.value) as PlainRequest | PlainRequest[];
      send(Array.isArray(given) ? given : [given]);
    } catch (reason) {
      error.value = `This is not JSON: ${(reason as Error).message}`;
    }
  };
  return (
    <form class="request" aria-label="Correct the request" onSubmit={submit}>
      {json.value === null ? (
        now.value.map((each, place) => <OneRequest key={place} id={`${id}-${place}`} request={each} put={(request) => put(place, request)} />)
      ) : (
        <label>
          The request as JSON
          <textarea rows={8} spellcheck={false} value={json.value} onInput={(event) => (json.value = event.currentTarget.value)} />
        </label>
      )}
      {error.value && (
        <p class="error" role="alert">
          {error.value}
        </p>
      )}
      <div class="row">
        <button type="submit" class="primary">
          Ask again, corrected
        </button>
        <button type="button" onClick={() => (json.value = json.value === null ? JSON.stringify(now.value, null, 2) : null)}>
          {json.value === null ? "As JSON" : "As a form"}
        </button>
      </div>
    </form>
  );
}

function OneRequest({ id, request, put }: { id: string; request: PlainRequest; put: (request: PlainRequest) => void }) {
  const { task, ...rest } = request;
  const known = store.about.value?.fields ?? {};
  const left = fieldsOf(task, Object.keys(known)).filter((name) => !(name in rest));
  return (
    <fieldset>
      <legend>{taskWords(task)}</legend>
      <label>
        Do
        <select value={task} onChange={(event) => put({ ...rest, task: event.currentTarget.value })}>
          {TASK_NAMES.map((each) => (
            <option key={each} value={each}>
              {taskWords(each)}
            </option>
          ))}
        </select>
      </label>
      {Object.entries(rest).map(([name, value]) => (
        <div class="row" key={name}>
          <label>
            {words(name)}
            <input
              type="text"
              list={known[name] ? `${id}-${name}` : undefined}
              value={spellField(value)}
              onChange={(event) => put({ ...request, [name]: readField(name, event.currentTarget.value) })}
            />
          </label>
          {known[name] && (
            <datalist id={`${id}-${name}`}>
              {known[name].map((label) => (
                <option key={label} value={label} />
              ))}
            </datalist>
          )}
          <button
            type="button"
            class="plain"
            aria-label={`Leave out ${words(name)}`}
            onClick={() => put(Object.fromEntries(Object.entries(request).filter(([each]) => each !== name)) as PlainRequest)}
          >
            ×
          </button>
        </div>
      ))}
      {left.length > 0 && (
        <label>
          Add
          <select
            value=""
            onChange={(event) => {
              const name = event.currentTarget.value;
              if (name) put({ ...request, [name]: readField(name, "") });
              event.currentTarget.value = "";
            }}
          >
            <option value="">a field…</option>
            {left.map((name) => (
              <option key={name} value={name}>
                {words(name)}
              </option>
            ))}
          </select>
        </label>
      )}
    </fieldset>
  );
}
