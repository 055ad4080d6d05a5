/** Small parts that several panels share: code to copy, details to open, a text that ticks. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { downloadText, get } from "./api";
import type { Reproduce } from "./types";

export function Details({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <details>
      <summary>{title}</summary>
      {children}
    </details>
  );
}

export function Code({ title, text, name }: { title: string; text: string; name?: string }) {
  const copied = useSignal("");
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text);
      copied.value = "Copied";
    } catch {
      copied.value = "Select the text and copy it: the browser did not allow it";
    }
    setTimeout(() => (copied.value = ""), 3000);
  };
  return (
    <div class="code">
      <div class="row">
        <strong>{title}</strong>
        <span class="quiet" role="status">
          {copied.value}
        </span>
        <button type="button" class="plain" onClick={() => void copy()} aria-label={`Copy: ${title}`}>
          Copy
        </button>
        {name && (
          <button type="button" class="plain" onClick={() => downloadText(text, name)} aria-label={`Download: ${title}`}>
            Download
          </button>
        )}
      </div>
      <pre tabIndex={0} aria-label={title}>
        {text}
      </pre>
    </div>
  );
}

/** The Python and the command that give what a job gave; asked for when opened. */
export function Reproduced({ job, name }: { job: string; name: string }) {
  const said = useSignal<Reproduce | null>(null);
  const error = useSignal("");
  const open = (isOpen: boolean): void => {
    if (!isOpen || said.value) return;
    get<Reproduce>(`/v1/jobs/${job}/reproduce`).then(
      (found) => (said.value = found),
      (reason: Error) => (error.value = reason.message),
    );
  };
  return (
    <details onToggle={(event) => open(event.currentTarget.open)}>
      <summary>Python and command</summary>
      {error.value && <p class="error">{error.value}</p>}
      {said.value && <Code title="Python" text={said.value.python} name={`${name}.py`} />}
      {said.value && <Code title="Command" text={said.value.command} />}
    </details>
  );
}

/** A text that is said anew each second. */
export function Ticking({ of }: { of: () => string }) {
  const now = useSignal(of());
  useEffect(() => {
    const timer = setInterval(() => (now.value = of()), 1000);
    return () => clearInterval(timer);
  });
  return <>{now.value}</>;
}

export const Warnings = ({ of }: { of: string[] }) => (
  <>
    {of.map((each) => (
      <p key={each} class="warning">
        {each}
      </p>
    ))}
  </>
);
