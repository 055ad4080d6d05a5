"""The line in front of a model."""

from __future__ import annotations

import threading
import time

import pytest

from scmulan.serving.line import CHAT, JOB, MOST_IN_A_ROW, Line


@pytest.fixture
def line():
    found = Line()
    yield found
    found.close()


def held(line) -> threading.Event:
    """The line at work on something until an event."""
    begun, may_go = threading.Event(), threading.Event()
    line.put(lambda: (begun.set(), may_go.wait(10)))
    assert begun.wait(10)
    return may_go


def taken(line, ranks) -> list[int]:
    """The order in which pieces are taken that were lined up while another was worked on."""
    may_go, order = held(line), []
    waiting = [line.put(lambda number=number: order.append(number), rank) for number, rank in enumerate(ranks)]
    may_go.set()
    for each in waiting:
        each.result(10)
    return order


def test_chats_go_before_jobs_in_the_order_they_came(line):
    assert taken(line, [JOB, JOB, CHAT, CHAT]) == [2, 3, 0, 1]


def test_a_job_goes_after_every_few_chats_that_never_end(line):
    order = taken(line, [JOB, JOB, *[CHAT] * 10])
    assert order.index(0) == MOST_IN_A_ROW
    assert order.index(1) == 2 * MOST_IN_A_ROW + 1


def test_an_error_is_raised_where_it_is_waited_for_and_the_line_goes_on(line):
    wrong = line.put(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wrong.result(10)
    assert line.put(lambda: 7).result(10) == 7


def test_what_was_cancelled_before_its_turn_is_passed_over(line):
    may_go, done = held(line), []
    left = line.put(lambda: done.append("left"))
    last = line.put(lambda: done.append("last"))
    assert left.cancel()
    may_go.set()
    last.result(10)
    assert done == ["last"]


def test_a_closed_line_takes_nothing_more():
    line = Line()
    may_go = held(line)
    after = line.put(lambda: 1)
    closing = threading.Thread(target=line.close)
    closing.start()
    may_go.set()
    closing.join(10)
    assert not after.done()


def test_a_turn_is_expected_by_what_those_before_it_took(line):
    assert line.until_turn() == 0.0
    line.put(lambda: time.sleep(0.2), CHAT).result(10)
    may_go = held(line)
    left, *others = [line.put(lambda: None, CHAT) for _ in range(4)]
    assert left.cancel()
    assert 0.5 < line.until_turn() < 1.0
    may_go.set()
    for each in others:
        each.result(10)
