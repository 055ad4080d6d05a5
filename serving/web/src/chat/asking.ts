/** The thread: questions with what they were about, and the answers, which the server keeps. */

import { call, get, isStopped } from "../api";
import { thin } from "../arrays";
import { keep, type KeptExchange } from "../keep";
import { adopt } from "../making";
import * as store from "../store";
import type { Answer, PlainRequest } from "../types";

const MOST_ROWS = 100_000;
const MOST_QUESTIONS = 20;
const WRITES = ["generate", "complete"];
let asking: AbortController | null = null;

interface Completion {
  choices: { message: { content: string } }[];
  scmulan: Answer;
}

export function ask(question: string, about: store.Exchange["about"], corrected: PlainRequest[] | null = null): Promise<void> {
  const chosen = about === "selection" ? store.selection.value : null;
  return send({
    question,
    about: about === "selection" && !chosen ? "all" : about,
    rows: chosen ? thin(chosen.rows, MOST_ROWS) : null,
    model: store.model.value,
    corrected,
    job: "",
    answer: null,
    error: "",
    began: Date.now(),
  });
}

/** The same question again with its request corrected, about the same cells. */
export const askAgain = (of: store.Exchange, corrected: PlainRequest[]): Promise<void> =>
  send({ ...of, model: store.model.value, corrected, job: "", answer: null, error: "", began: Date.now() });

export const stopAsking = (): void => asking?.abort();

async function send(exchange: store.Exchange): Promise<void> {
  const place = store.thread.value.length;
  const before = store.thread.value.filter((each) => each.answer).slice(1 - MOST_QUESTIONS);
  put(place, exchange);
  asking = new AbortController();
  const messages = [
    ...before.flatMap((each) => [
      { role: "user", content: each.question },
      { role: "assistant", content: each.answer!.text },
    ]),
    { role: "user", content: exchange.question },
  ];
  const extra: Record<string, unknown> = {};
  if (exchange.about !== "none" && store.file.value) extra.file_id = store.file.value.id;
  if (exchange.rows && extra.file_id) extra.rows = exchange.rows;
  if (exchange.corrected) extra.request = exchange.corrected;
  try {
    const response = await call("/v1/chat/completions", {
      body: { model: exchange.model, messages, scmulan: extra },
      stop: asking.signal,
    });
    const said = (await response.json()) as Completion;
    const answer = { ...said.scmulan, text: said.choices[0]?.message.content ?? said.scmulan.text };
    const job = /job-[0-9a-f]{24}/.exec(answer.result ?? "")?.[0] ?? "";
    put(place, { ...exchange, answer, job });
    store.told.value = answer.text;
    const writes = answer.results.find((each) => each.done && WRITES.includes(each.request.task));
    if (writes && job && store.layout.value) void adopt(job, `asked for: ${titleOf(exchange.question)}`, "generated");
  } catch (error) {
    const text = isStopped(error)
      ? "stopped"
      : error instanceof Error
        ? error.message
        : String(error);
    put(place, { ...exchange, error: text });
    if (!isStopped(error)) store.told.value = `Not answered: ${text}`;
  }
}

const titleOf = (question: string): string => (question.length > 40 ? `${question.slice(0, 38)}…` : question);

function put(place: number, exchange: store.Exchange): void {
  const thread = [...store.thread.value];
  thread[place] = exchange;
  store.thread.value = thread;
  keepThread();
}

export function keepThread(): void {
  keep({
    thread: store.thread.value
      .filter((each) => each.error !== "stopped")
      .map(({ question, about, rows, model, corrected, job }) => ({ question, about, rows: rows && thin(rows, 2000), model, corrected, job })),
  });
}

export function clearThread(): void {
  asking?.abort();
  store.thread.value = [];
  keep({ thread: [] });
}

/** The thread after a reload: answers from the server; a question that had none yet is asked again. */
export function restoreThread(kept: KeptExchange[]): void {
  store.thread.value = kept.map((each) => ({ ...each, answer: null, error: each.job ? "" : "not answered before the page was left", began: Date.now() }));
  kept.forEach((each, place) => {
    if (!each.job) return;
    const result = `/v1/jobs/${each.job}/result.json`;
    get<Answer>(result).then(
      (answer) => put(place, { ...store.thread.value[place], answer: { ...answer, result } }),
      (error: Error) => put(place, { ...store.thread.value[place], error: `the answer is no longer on the server (${error.message})` }),
    );
  });
}
