"""The line in front of a model."""

from __future__ import annotations

import threading
import time

import pytest

from scmulan.serving.line import CHAT, JOB, JOBS_UNDER_WAY, MOST_IN_A_ROW, UNDER_WAY, Line


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


class Aside:
    """Pieces that step aside until they may return, and what is under way at once."""

    def __init__(self, line):
        self.line, self.may_return, self.at_work, self.most = line, threading.Event(), 0, 0
        self.begun: list[int] = []

    def piece(self, number: int = 0) -> int:
        self._works()
        self.begun.append(number)
        with self.line.aside():
            assert self.may_return.wait(10)
        self._works()
        return number

    def _works(self) -> None:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        time.sleep(0.01)
        self.at_work -= 1


def until(true) -> None:
    ends = time.monotonic() + 10
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_others_go_while_a_piece_is_aside_and_one_at_a_time_is_at_work(line):
    pieces = Aside(line)
    waiting = [line.put(lambda number=number: pieces.piece(number), CHAT) for number in range(4)]
    until(lambda: len(pieces.begun) == 4)
    assert line.put(lambda: 7, CHAT).result(10) == 7
    pieces.may_return.set()
    assert [each.result(10) for each in waiting] == [0, 1, 2, 3]
    assert pieces.most == 1


def test_what_returns_goes_before_what_has_not_begun(line):
    pieces, order = Aside(line), []
    first = line.put(lambda: order.append(("returned", pieces.piece())))
    until(lambda: pieces.begun)
    may_go = held(line)
    second = line.put(lambda: order.append(("new", 1)), CHAT)
    pieces.may_return.set()
    until(lambda: line._returning)
    may_go.set()
    for each in (first, second):
        each.result(10)
    assert [what for what, _ in order] == ["returned", "new"]


def test_a_chat_finds_room_beside_as_many_jobs_as_may_be_aside(line):
    pieces = Aside(line)
    jobs = [line.put(lambda number=number: pieces.piece(number)) for number in range(UNDER_WAY)]
    until(lambda: len(pieces.begun) == JOBS_UNDER_WAY)
    assert line.put(lambda: 7, CHAT).result(10) == 7
    assert len(pieces.begun) == JOBS_UNDER_WAY
    pieces.may_return.set()
    assert [each.result(10) for each in jobs] == list(range(UNDER_WAY))


def test_an_error_while_aside_is_raised_when_it_is_ones_turn_again(line):
    def fails() -> None:
        with line.aside():
            raise ZeroDivisionError

    wrong = line.put(fails)
    with pytest.raises(ZeroDivisionError):
        wrong.result(10)
    assert line.put(lambda: 7).result(10) == 7


def test_to_step_aside_is_nothing_outside_of_a_piece(line):
    may_go = held(line)
    with line.aside():
        pass
    may_go.set()


def test_a_line_closes_when_what_is_aside_has_returned():
    line = Line()
    pieces = Aside(line)
    first = line.put(pieces.piece)
    until(lambda: pieces.begun)
    closing = threading.Thread(target=line.close)
    closing.start()
    pieces.may_return.set()
    closing.join(10)
    assert not closing.is_alive()
    assert first.result(0) == 0


def test_seconds_beside_others_are_shared_in_what_a_turn_is_expected_to_take(line):
    pieces = Aside(line)
    waiting = [line.put(pieces.piece, CHAT) for _ in range(4)]
    until(lambda: len(pieces.begun) == 4)
    time.sleep(0.4)
    pieces.may_return.set()
    for each in waiting:
        each.result(10)
    may_go = held(line)
    others = [line.put(lambda: None, CHAT) for _ in range(2)]
    assert line.until_turn() < 0.6
    may_go.set()
    for each in others:
        each.result(10)
