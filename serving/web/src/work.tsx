/** Work in progress: what the server is at, how far, and a way to stop it. */

import { cancel, forget, hasEnded, jobs } from "./jobs";
import { Ticking } from "./parts";
import { cells, seconds } from "./words";
import type { Job } from "./types";

export function WorkStrip() {
  const open = Object.values(jobs.value).filter((each) => !hasEnded(each.job) || each.job.state === "failed");
  if (!open.length) return null;
  return (
    <section class="work" aria-label="Work in progress">
      <ul>
        {open.map(({ title, job, since }) => (
          <li key={job.id} data-state={job.state}>
            <span class="work-title">{title}</span>
            {job.state === "failed" ? (
              <>
                <span class="error">Failed: {job.message}</span>
                <button type="button" aria-label={`Close: ${title}`} onClick={() => forget(job.id)}>
                  ×
                </button>
              </>
            ) : (
              <>
                <progress aria-label={title} value={share(job)} />
                <span class="quiet">
                  {job.state === "queued" ? "waits its turn" : job.cells ? cells(job.cells) : ""} <Ticking of={() => seconds(since)} />
                </span>
                <button type="button" aria-label={`Cancel: ${title}`} onClick={() => void cancel(job.id)}>
                  Cancel
                </button>
              </>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

const share = (job: Job): number | undefined => (job.state === "running" && job.total > 1 ? Math.max(0.02, job.done / job.total) : undefined);
