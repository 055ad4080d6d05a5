/** The chat: what a question is about, the thread, and where it is written. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import * as store from "../store";
import { cells, count, seconds } from "../words";
import { AnswerView } from "./answer";
import { ask, clearThread, stopAsking } from "./asking";
import { Verdict } from "../open/verdict";
import { Ticking } from "../parts";

const GENERAL = ["10 B cells from blood", "Knock out STAT1", "Which genes are like CD3D?"];

export function Chat() {
  const chosenAbout = useSignal<store.Exchange["about"] | null>(null);
  const end = useRef<HTMLDivElement>(null);
  const thread = store.thread.value;
  const hasFile = store.file.value !== null;
  const chosen = store.selection.value;
  const about = chosenAbout.value === "selection" && !chosen ? "all" : (chosenAbout.value ?? (hasFile ? (chosen ? "selection" : "all") : "none"));
  const isWaiting = thread.some((each) => !each.answer && !each.error);
  const given = store.about.value?.examples.find((each) => each.name === store.example.value)?.questions;
  const suggested = given ?? (hasFile ? ["What kinds of cells are these?", "Which organ are they from?", ...GENERAL.slice(0, 1)] : GENERAL);

  useEffect(() => end.current?.scrollIntoView?.({ block: "nearest" }), [thread.length]);

  const send = (text: string): void => {
    const said = text.trim();
    if (!said || isWaiting) return;
    void ask(said, about);
  };

  return (
    <div class="chat">
      <div class="thread" role="log" aria-label="Questions and answers" tabIndex={0}>
        {thread.length === 0 && store.file.value && <Verdict file={store.file.value} />}
        {thread.length === 0 && <Suggestions texts={suggested} send={send} />}
        {thread.map((each, place) => (
          <article key={place} class="exchange" aria-label={`Question ${place + 1}`}>
            <p class="question">
              {each.question}
              <small>{aboutSaid(each)}</small>
            </p>
            {each.answer && <AnswerView exchange={each} answer={each.answer} place={place} />}
            {each.error && <Failed exchange={each} />}
            {!each.answer && !each.error && (
              <p class="waiting">
                <span class="spinner" aria-hidden="true" />
                Thinking, <Ticking of={() => seconds(each.began)} />{" "}
                <button type="button" onClick={stopAsking}>
                  Stop
                </button>
              </p>
            )}
          </article>
        ))}
        <div ref={end} />
      </div>
      {thread.length > 0 && <Suggestions texts={suggested.filter((text) => !thread.some((each) => each.question === text))} send={send} isSmall />}
      <Asking about={about} choose={(each) => (chosenAbout.value = each)} isWaiting={isWaiting} send={send} />
    </div>
  );
}

const aboutSaid = (each: store.Exchange): string => {
  if (each.corrected) return "asked again, corrected";
  if (each.about === "none") return "about no cells";
  return each.rows ? `about ${cells(each.rows.length)}, chosen` : "about all cells";
};

function Suggestions({ texts, send, isSmall = false }: { texts: string[]; send: (text: string) => void; isSmall?: boolean }) {
  if (!texts.length) return null;
  return (
    <div class={isSmall ? "suggestions small" : "suggestions"} role="group" aria-label="Questions to try">
      {!isSmall && <p>Ask in your own words. To begin with:</p>}
      {texts.map((text) => (
        <button type="button" key={text} onClick={() => send(text)}>
          {text}
        </button>
      ))}
    </div>
  );
}

function Failed({ exchange }: { exchange: store.Exchange }) {
  return (
    <div class="failed">
      <p>{exchange.error === "stopped" ? "Stopped." : `Not answered: ${exchange.error}`}</p>
      <button type="button" onClick={() => void ask(exchange.question, exchange.about, exchange.corrected)}>
        Ask again
      </button>
    </div>
  );
}

interface AskingProps {
  about: store.Exchange["about"];
  choose: (about: store.Exchange["about"]) => void;
  isWaiting: boolean;
  send: (text: string) => void;
}

/** A part of its own, so that writing does not draw the thread anew. */
function Asking({ about, choose, isWaiting, send }: AskingProps) {
  const question = useSignal("");
  const hasFile = store.file.value !== null;
  const chosen = store.selection.value;
  const most = store.about.value?.limits.question_characters ?? 2000;
  const submit = (): void => {
    if (isWaiting || !question.value.trim()) return;
    send(question.value);
    question.value = "";
  };
  return (
      <form
        class="asking"
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        <fieldset>
          <legend>About</legend>
          {(["selection", "all", "none"] as const).map((each) => (
            <label key={each}>
              <input
                type="radio"
                name="about"
                checked={about === each}
                disabled={each === "selection" ? !chosen : each === "all" && !hasFile}
                onChange={() => choose(each)}
              />
              {each === "selection" ? `the chosen cells${chosen ? ` (${count(chosen.rows.length)})` : ""}` : each === "all" ? "all cells" : "no cells"}
            </label>
          ))}
        </fieldset>
        <label class="hidden" for="question">
          Your question
        </label>
        <textarea
          id="question"
          rows={2}
          maxLength={most}
          placeholder="What are these cells, and which genes say so?"
          value={question.value}
          onInput={(event) => (question.value = event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
              event.preventDefault();
              submit();
            }
          }}
        />
        <div class="row">
          <button type="submit" class="primary" disabled={isWaiting || !question.value.trim()}>
            Ask
          </button>
          {store.thread.value.length > 0 && (
            <button type="button" onClick={clearThread}>
              New thread
            </button>
          )}
        </div>
      </form>
  );
}
