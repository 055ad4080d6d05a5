"""Jobs in pieces: kept at every step, gone on with by the next server, cancelled between pieces and within them."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from scmulan.errors import CellDataError
from scmulan.serving.jobs import CANCELLED, DONE, FAILED, QUEUED, RUNNING, JobError, Jobs, TooManyJobs
from scmulan.serving.line import CHAT, JOB, Line


class Pieces:
    """Work that writes a number a piece, and can be held."""

    def __init__(self, *, fails_at: int | None = None, waits_at: int | None = None):
        self.may_go, self.carried, self.fails_at, self.waits_at = threading.Event(), [], fails_at, waits_at
        self.may_go.set()

    def asks_model(self, job):
        return True

    def pieces(self, job):
        return int(job.asked["pieces"])

    def carry(self, job, number, folder, tick):
        if number == self.fails_at:
            raise CellDataError("cells.h5ad: no counts in it")
        if number == self.waits_at:
            self.may_go.clear()
        for _ in range(5):
            assert self.may_go.wait(10)
            tick(1)
        self.carried.append((job.id, number))
        (folder / f"{number:06d}.txt").write_text(str(number))
        return ["a warning"] if number == 0 else []

    def finish(self, job, folder):
        said = [path.read_text() for path in sorted((folder / "pieces").iterdir())]
        (folder / "result.csv").write_text("\n".join(said))
        return {"pieces": len(said)}


@pytest.fixture
def line():
    line = Line()
    yield line
    line.close()


def ended(jobs, job_id, owner=""):
    for _ in range(400):
        job = jobs.get(job_id, owner)
        if job.has_ended:
            return job
        time.sleep(0.02)
    raise AssertionError(f"still {job.state}")


def test_a_job_goes_through_its_pieces_and_keeps_its_result(tmp_path, line):
    jobs = Jobs(tmp_path, Pieces(), line)
    job = ended(jobs, jobs.add("annotate", {"pieces": 3}).id)
    assert (job.state, job.done, job.total, job.cells) == (DONE, 3, 3, 15)
    assert (job.summary, job.warnings) == ({"pieces": 3}, ("a warning",))
    assert jobs.path(job, "result.csv").read_text() == "0\n1\n2"
    assert not jobs.path(job, "pieces").exists()


def test_two_jobs_take_turns_and_a_chat_goes_before_both(tmp_path, line):
    work = Pieces()
    work.may_go.clear()
    jobs = Jobs(tmp_path, work, line)
    one, other = (jobs.add("annotate", {"pieces": 3}) for _ in range(2))
    chat = line.put(lambda: len(work.carried), CHAT)
    work.may_go.set()
    assert chat.result(10) <= 1
    ended(jobs, one.id)
    ended(jobs, other.id)
    assert [job_id for job_id, _ in work.carried] == [one.id, other.id] * 3


def test_what_a_server_left_is_gone_on_with_by_the_next(tmp_path):
    work, line = Pieces(waits_at=2), Line()
    jobs = Jobs(tmp_path, work, line)
    job = jobs.add("annotate", {"pieces": 4})
    while jobs.get(job.id).done < 2:
        time.sleep(0.005)
    jobs.park()
    work.may_go.set()
    line.close()
    parked = json.loads((tmp_path / job.id / "job.json").read_text())
    assert parked["state"] == RUNNING
    again, line = Pieces(), Line()
    jobs = Jobs(tmp_path, again, line)
    assert ended(jobs, job.id).summary == {"pieces": 4}
    assert [number for _, number in again.carried] == list(range(parked["done"], 4))
    line.close()


def test_a_job_is_cancelled_within_a_piece(tmp_path, line):
    work = Pieces()
    jobs = Jobs(tmp_path, work, line)
    work.may_go.clear()
    job = jobs.add("annotate", {"pieces": 3})
    while jobs.get(job.id).state == QUEUED:
        time.sleep(0.005)
    assert jobs.cancel(job.id).state == CANCELLED
    work.may_go.set()
    assert line.put(lambda: True, JOB).result(10)
    assert (jobs.get(job.id).state, work.carried) == (CANCELLED, [])
    assert jobs.cancel(job.id).state == CANCELLED


def test_an_error_ends_a_job_in_its_own_words_and_a_fault_in_none(tmp_path, line):
    jobs = Jobs(tmp_path, Pieces(fails_at=1), line)
    job = ended(jobs, jobs.add("annotate", {"pieces": 3}).id)
    assert (job.state, job.message, job.done) == (FAILED, "cells.h5ad: no counts in it", 1)
    work = Pieces()
    work.finish = lambda job, folder: 1 / 0
    jobs = Jobs(tmp_path / "other", work, line)
    job = ended(jobs, jobs.add("annotate", {"pieces": 1}).id)
    assert (job.state, job.message) == (FAILED, f"a fault of the server, logged under {job.id}")


def test_jobs_of_others_and_unknown_ids_are_not_there(tmp_path, line):
    jobs = Jobs(tmp_path, Pieces(), line, most=2)
    job = jobs.add("annotate", {"pieces": 1}, "one")
    ended(jobs, job.id, "one")
    for job_id, owner in ((job.id, "other"), (job.id, ""), ("job-" + "0" * 24, "one"), ("../../etc", "one")):
        with pytest.raises(JobError, match="no job of this id"):
            jobs.get(job_id, owner)
    assert jobs.of("other") == []
    assert [each.id for each in jobs.of("one")] == [job.id]


def test_no_more_jobs_wait_than_may(tmp_path, line):
    work = Pieces()
    work.may_go.clear()
    jobs = Jobs(tmp_path, work, line, most=2)
    first = jobs.add("annotate", {"pieces": 1})
    jobs.add("annotate", {"pieces": 1})
    with pytest.raises(TooManyJobs, match="2 jobs wait already"):
        jobs.add("annotate", {"pieces": 1})
    jobs.remove(first.id)
    assert not (tmp_path / first.id).exists()
    jobs.add("annotate", {"pieces": 1})
    work.may_go.set()


def test_whoever_watches_sees_every_change_to_the_end(tmp_path, line):
    work = Pieces()
    work.may_go.clear()
    jobs = Jobs(tmp_path, work, line)

    async def watched():
        job = jobs.add("annotate", {"pieces": 2})
        seen = []
        async for each in jobs.events(job.id):
            seen.append(each)
            work.may_go.set()
        return seen

    seen = asyncio.run(watched())
    assert seen[-1].state == DONE
    assert [each.cells for each in seen] == sorted(each.cells for each in seen)
    assert {each.done for each in seen} == {0, 1, 2}


def test_what_ended_long_ago_is_removed(tmp_path, line):
    jobs = Jobs(tmp_path, Pieces(), line)
    old = ended(jobs, jobs.add("annotate", {"pieces": 1}).id)
    new = jobs.keep("chat", {}, "", lambda folder: (folder / "result.json").write_text("{}"))
    assert jobs.remove_older(new.ended) == 1
    with pytest.raises(JobError):
        jobs.get(old.id)
    assert jobs.path(new, "result.json").read_text() == "{}"


def test_work_that_was_cancelled_before_its_turn_is_passed_over(line):
    hold = threading.Event()
    line.put(lambda: hold.wait(10))
    never = line.put(lambda: pytest.fail("it was cancelled"))
    assert never.cancel()
    hold.set()
    with pytest.raises(ZeroDivisionError):
        line.put(lambda: 1 / 0).result(10)
    assert line.put(lambda: 7).result(10) == 7
