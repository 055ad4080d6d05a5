import { describe, expect, it, vi } from "vitest";
import { call, connection, keyAsked, ServerError } from "../src/api";
import { follow, JobFailed, splitEvents } from "../src/jobs";
import { answering, event, job, said, stream } from "./fixture";

describe("events of a stream", () => {
  it("are read whole, and the rest is kept", () => {
    const text = `${event(job({ done: 1 }))}: still at work\n\nevent: job\ndata: {"id"`;
    const { events, rest } = splitEvents(text);
    expect(events.map((each) => each.done)).toEqual([1]);
    expect(rest).toBe('event: job\ndata: {"id"');
  });
});

describe("a job that is followed", () => {
  it("is told of as it goes on, until it is done", async () => {
    answering(stream(event(job()), event(job({ done: 1 })), event(job({ state: "done", done: 2 }))));
    const seen: number[] = [];
    const done = await follow("job-1", "Answers", (each) => seen.push(each.done));
    expect(done.state).toBe("done");
    expect(seen.at(-1)).toBe(2);
  });

  it("is taken up again when the stream breaks", async () => {
    vi.useFakeTimers();
    answering(new TypeError("network error"), stream(event(job({ done: 1 }))), stream(event(job({ state: "done" }))));
    const following = follow("job-1", "Answers");
    await vi.advanceTimersByTimeAsync(100);
    expect(connection.value).toContain("can't be reached");
    await vi.advanceTimersByTimeAsync(5000);
    expect((await following).state).toBe("done");
    expect(connection.value).toBe("");
    vi.useRealTimers();
  });

  it("says why it failed", async () => {
    answering(stream(event(job({ state: "failed", message: "organ 'blod' was not among this model's training cells" }))));
    await expect(follow("job-1", "Answers")).rejects.toThrow(/blod/);
    answering(stream(event(job({ state: "cancelled" }))));
    await expect(follow("job-1", "Answers")).rejects.toBeInstanceOf(JobFailed);
  });
});

describe("calls", () => {
  it("bear the server's words where it refuses", async () => {
    answering(said({ error: { message: "not an HDF5 file" } }, 422));
    await expect(call("/v1/files")).rejects.toEqual(new ServerError("not an HDF5 file", 422));
  });

  it("wait as long as a busy server says, and tell so", async () => {
    vi.useFakeTimers();
    const fetched = answering(said({ error: { message: "too many" } }, 429, { "retry-after": "3" }), said({ ok: true }));
    const calling = call("/v1/about");
    await vi.advanceTimersByTimeAsync(2900);
    expect(fetched).toHaveBeenCalledTimes(1);
    expect(connection.value).toContain("3 s");
    await vi.advanceTimersByTimeAsync(200);
    expect((await calling).status).toBe(200);
    vi.useRealTimers();
  });

  it("ask for a key once, and carry it along", async () => {
    const fetched = answering(said({}, 401), said({ fine: true }));
    const calling = call("/v1/about");
    await vi.waitFor(() => expect(keyAsked.value).not.toBeNull());
    keyAsked.value!("secret");
    await calling;
    expect((fetched.mock.calls[1][1] as RequestInit).headers).toMatchObject({ authorization: "Bearer secret" });
    expect(keyAsked.value).toBeNull();
  });
});
