"""The order of data: the same on any number of processes, and from any place on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny_recipe

from scmulan.training import loop
from scmulan.training.recipe import Recipe, fill
from scmulan.training.stream import Cursor, PackStream, StepFeeder


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory) -> loop.Run:
    recipe = fill(Recipe, tiny_recipe(tmp_path_factory.mktemp("order"), packs_per_step=4, seed=3), "test")
    return loop.Run(recipe, trained.corpus, say=lambda _: None, log_with=None)


def steps_of(run: loop.Run, n_steps: int, *, process: int = 0, processes: int = 1, cursor: Cursor | None = None):
    stream = PackStream(run.corpus, run.writer, run._packing_of, run.recipe.seed, cursor or Cursor())
    feeder = StepFeeder(stream, run._inputs, run.recipe.step_packs, process=process, processes=processes)
    found = [feeder.next() for _ in range(n_steps)]
    feeder.close()
    return found


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_read_what_one_reads_alone(run, processes):
    alone = steps_of(run, 9)
    shared = [steps_of(run, 9, process=process, processes=processes) for process in range(processes)]
    for number, step in enumerate(alone):
        parts = sorted((pack for each in shared for pack in each[number].mine), key=lambda pack: pack[0])
        assert [place for place, _ in parts] == [0, 1, 2, 3]
        for (_, found), (_, wanted) in zip(parts, step.mine, strict=True):
            assert np.array_equal(found.ids, wanted.ids)
        assert {(each[number].total, each[number].tokens) for each in shared} == {(step.total, step.tokens)}


def test_a_stream_goes_on_from_the_cursor_of_any_step(run):
    steps = steps_of(run, 9)
    for number in (0, 3, 7):
        again = steps_of(run, 1, cursor=replace(steps[number].cursor))[0]
        for (_, found), (_, wanted) in zip(again.mine, steps[number + 1].mine, strict=True):
            assert np.array_equal(found.ids, wanted.ids)


def test_what_is_made_ahead_does_not_move_the_place_that_a_checkpoint_keeps(run):
    first, second = steps_of(run, 2)
    assert first.cursor != second.cursor
    assert (first.cursor.epoch, first.cursor.place) == (0, 4)


def test_an_error_in_making_a_step_is_raised_where_it_is_asked_for(run):
    stream = PackStream(run.corpus, run.writer, run._packing_of, 0, Cursor())

    def broken(packs, place):
        raise OSError("the disk is gone")

    feeder = StepFeeder(stream, broken, 1, process=0, processes=1)
    with pytest.raises(OSError, match="the disk is gone"):
        feeder.next()
    feeder.close()
