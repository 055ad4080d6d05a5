/**
 * Calls of the server. A lost connection is waited out and asked again, with a banner meanwhile (`connection`); 429 and 503 are waited out as
 * long as they say; 401 asks for the key, which is kept for this tab alone. Other errors are thrown in the server's words.
 */

import { signal } from "@preact/signals";

export class ServerError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** What the banner says while the server can't be reached or is busy; empty when all is well. */
export const connection = signal("");
/** Whether a key is asked for; `resolve` takes it. */
export const keyAsked = signal<((key: string) => void) | null>(null);

const KEY = "scmulan.key";
const MOST_WAITS = 60;
let asking: Promise<void> | null = null;

export function headers(): Record<string, string> {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
}

export const hasKey = (): boolean => sessionStorage.getItem(KEY) !== null;

export function askForKey(): Promise<void> {
  asking ??= new Promise<void>((resolve) => {
    keyAsked.value = (key) => {
      sessionStorage.setItem(KEY, key.trim());
      keyAsked.value = null;
      asking = null;
      resolve();
    };
  });
  return asking;
}

export const pause = (milliseconds: number, stop?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    stop?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });

export const backoff = (attempt: number): number => Math.min(500 * 2 ** attempt, 8000);
export const isStopped = (error: unknown): boolean => error instanceof DOMException && error.name === "AbortError";

export interface CallOptions {
  method?: string;
  body?: unknown;
  stop?: AbortSignal;
}

/** A response that is fine. */
export async function call(path: string, options: CallOptions = {}): Promise<Response> {
  const isForm = options.body instanceof FormData;
  for (let attempt = 0; ; attempt++) {
    let response: Response;
    try {
      response = await fetch(path, {
        method: options.method ?? (options.body === undefined ? "GET" : "POST"),
        headers: { ...headers(), ...(options.body === undefined || isForm ? {} : { "content-type": "application/json" }) },
        body: options.body === undefined ? undefined : isForm ? (options.body as FormData) : JSON.stringify(options.body),
        signal: options.stop,
      });
    } catch (error) {
      if (isStopped(error)) throw error;
      connection.value = "The server can't be reached. Trying again; your work is kept.";
      await pause(backoff(attempt), options.stop);
      continue;
    }
    if (response.status === 401) {
      await askForKey();
      continue;
    }
    if ((response.status === 429 || response.status === 503) && attempt < MOST_WAITS) {
      const seconds = Number(response.headers.get("retry-after")) || 5;
      connection.value = `The server is busy (${await messageOf(response)}). Asking again in ${seconds} s.`;
      await pause(seconds * 1000, options.stop);
      continue;
    }
    connection.value = "";
    if (!response.ok) throw new ServerError(await messageOf(response), response.status);
    return response;
  }
}

export async function messageOf(response: Response): Promise<string> {
  try {
    const said = (await response.json()) as { error?: { message?: string }; detail?: string };
    return said.error?.message ?? said.detail ?? `the server answered ${response.status}`;
  } catch {
    return `the server answered ${response.status}`;
  }
}

export async function get<T>(path: string, stop?: AbortSignal): Promise<T> {
  return (await (await call(path, { stop })).json()) as T;
}

export async function post<T>(path: string, body: unknown, stop?: AbortSignal): Promise<T> {
  return (await (await call(path, { method: "POST", body, stop })).json()) as T;
}

/** Sends a file and says how far it is, from 0 to 1. */
export function upload<T>(file: File, onProgress: (share: number) => void, stop: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/files");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    };
    request.onload = () => {
      const said = request.response as { error?: { message?: string } } | null;
      if (request.status === 401) {
        void askForKey().then(() => resolve(upload<T>(file, onProgress, stop)));
      } else if (request.status >= 200 && request.status < 300) {
        resolve(request.response as T);
      } else {
        reject(new ServerError(said?.error?.message ?? `the server answered ${request.status}`, request.status));
      }
    };
    request.onerror = () =>
      reject(new ServerError("the connection was lost while the file was sent, or the server refused its size; drop it again", 0));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    stop.addEventListener("abort", () => request.abort());
    const form = new FormData();
    form.append("file", file);
    request.send(form);
  });
}

/** Saves what stands at an address, with the key where one is needed. */
export async function download(path: string, name: string): Promise<void> {
  const link = document.createElement("a");
  link.download = name;
  if (!hasKey()) {
    link.href = path;
    link.click();
    return;
  }
  link.href = URL.createObjectURL(await (await call(path)).blob());
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export function downloadText(text: string, name: string): void {
  const link = document.createElement("a");
  link.download = name;
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
