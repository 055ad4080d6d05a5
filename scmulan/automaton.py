"""Which ids may come next in a c-sentence: one grammar for the loss and for the sampler.

Inside a cell: after ``<cell>`` a depth; after a depth a level; after a level any gene not named yet; after a gene a later gene
not named yet, a lower level, or ``</cell>``. Outside: words after a field, then words, another part or the end.

``legal_targets`` reads whole known sentences (numpy, for the loss); ``CellAutomaton`` goes step by step (torch, for the
sampler). A test holds them equal.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from scmulan.csentence import N_DEPTHS, Ids, Vocabulary
from scmulan.errors import SentenceError


@dataclass(frozen=True)
class LegalTargets:
    """The ids to be predicted in a run of sentences, with what is legal at each.

    Position ``p`` is where the hidden state stands that predicts the id at ``p + 1``.

    Attributes
    ----------
    depth_at, depth_target : (N,) positions whose next id is a depth (legal: depths), and that id
    cell_at, cell_target : (M,) positions whose next id is a gene, a level or ``</cell>``, and that id
    after_gene : (M,) int, legal genes are those of a column greater than this; the number of genes when none is
    after_level : (M,) int, legal levels are the ids greater than this, up to ``</cell>``
    named_of, named : (P,) index into the M positions and a gene column that is illegal there, for it stands at a higher level
    word_at, word_target : (W,) positions outside cells (legal: everything but depths and levels), and the next id
    word_only : (W,) bool, whether only a word may follow (right after a field's token)
    """

    depth_at: Ids
    depth_target: Ids
    cell_at: Ids
    cell_target: Ids
    after_gene: Ids
    after_level: Ids
    named_of: Ids
    named: Ids
    word_at: Ids
    word_target: Ids
    word_only: npt.NDArray[np.bool_]


def legal_targets(ids: npt.ArrayLike, is_learnt: npt.NDArray[np.bool_], vocabulary: Vocabulary) -> LegalTargets:
    """What is legal at each learnt id of sentences laid end to end.

    Parameters
    ----------
    ids : (T,) int
    is_learnt : (T,) bool
        Whether the id at this place is to be predicted. The first id of a sentence never is.
    """
    ids = np.asarray(ids, dtype=np.int64)
    v = vocabulary
    previous, target = ids[:-1], ids[1:]
    learnt = is_learnt[1:].copy()
    is_depth = (target >= v.first_depth) & (target < v.first_depth + N_DEPTHS)
    inside = np.zeros(len(ids), dtype=np.int64)
    inside[ids == v.cell] += 1
    inside[ids == v.end_of_cell] -= 1
    inside = np.cumsum(inside)  # 1 from <cell> to the id before </cell>
    in_cell = (inside[:-1] == 1) & (previous != v.cell)
    cell_at = np.flatnonzero(learnt & in_cell & (previous != v.first_depth))  # after <depth:0> only </cell> may come: nothing to learn
    place = np.arange(len(ids))
    is_level = (ids >= v.first_level) & (ids < v.end_of_cell)
    level_place = np.maximum.accumulate(np.where(is_level, place, 0))
    before = ids[cell_at]
    was_gene, was_level = before >= v.first_gene, is_level[cell_at]
    after_gene = np.where(was_gene, before - v.first_gene, np.where(was_level, -1, v.n_genes))
    after_level = np.where(was_gene, ids[level_place[cell_at]], np.where(was_level, v.end_of_cell, v.first_level - 1))
    named_of, named = _named_before(ids, cell_at, after_gene, level_place, v)
    word_at = np.flatnonzero(learnt & ~in_cell & ~is_depth)
    field_like = (ids[word_at] >= 4) & (ids[word_at] < v.text[0])
    word_only = field_like & (ids[word_at + 1] >= v.text[0]) & ~np.isin(ids[word_at + 1], [v.eos])
    depth_at = np.flatnonzero(learnt & is_depth)
    return LegalTargets(
        depth_at, target[depth_at], cell_at, target[cell_at], after_gene, after_level, named_of, named, word_at, target[word_at], word_only
    )


def _named_before(ids: Ids, cell_at: Ids, after_gene: Ids, level_place: Ids, v: Vocabulary) -> tuple[Ids, Ids]:
    """Pairs (index into cell_at, gene column) of later genes that stand at a higher level of the same cell already."""
    starts = np.maximum.accumulate(np.where(ids == v.cell, np.arange(len(ids)), 0))[cell_at]
    levels = level_place[cell_at]
    owners, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    if not len(cell_at):
        return owners[0], columns[0]
    runs = np.flatnonzero(np.r_[True, (levels[1:] != levels[:-1]) | (starts[1:] != starts[:-1])])
    for first, last in zip(runs, np.r_[runs[1:], len(cell_at)], strict=True):
        higher = ids[starts[first] + 2 : max(levels[first], starts[first] + 2)]
        higher = np.sort(higher[higher >= v.first_gene]) - v.first_gene
        if len(higher):
            owner, which = np.nonzero(higher[None, :] > after_gene[first:last, None])
            owners.append(first + owner)
            columns.append(higher[which])
    return np.concatenate(owners), np.concatenate(columns)


OTHER_ID, DEPTH_0_ID, DEPTH_ID, LEVEL_ID, END_ID, GENE_ID = range(6)
"""Kinds of ids, as the step after them tells them apart."""


@dataclass(frozen=True)
class _Rules:
    """The grammar of a cell as tables, so that a step looks up what it would work out in a dozen operations.

    Attributes
    ----------
    kind : (first gene + 1,) of each id before the genes, and of a gene
    after : (phases, kinds) the phase after an id
    frame : (phases, 1 + levels, 2, first gene) bool, which ids before the genes are legal, by the level that stands and by whether a gene
        is open
    takes_gene : (phases,) bool
    """

    kind: torch.Tensor
    after: torch.Tensor
    frame: torch.Tensor
    takes_gene: torch.Tensor


@functools.lru_cache
def _rules(pad: int, first_depth: int, first_level: int, end_of_cell: int, first_gene: int, device: str) -> _Rules:
    a = CellAutomaton
    kind = torch.full((first_gene + 1,), OTHER_ID)
    kind[first_depth : first_depth + N_DEPTHS] = DEPTH_ID
    kind[first_depth], kind[end_of_cell], kind[first_gene] = DEPTH_0_ID, END_ID, GENE_ID
    kind[first_level:end_of_cell] = LEVEL_ID
    after = torch.arange(6)[:, None].repeat(1, 6)
    after[a.DEPTH] = a.FIRST_LEVEL
    after[a.DEPTH, DEPTH_0_ID] = a.EMPTY
    after[:, GENE_ID], after[:, LEVEL_ID], after[:, END_ID] = a.ANY, a.GENE, a.DONE
    after[a.DONE] = a.DONE
    n_levels = end_of_cell - first_level
    frame = torch.zeros(6, 1 + n_levels, 2, first_gene, dtype=torch.bool)
    frame[a.DEPTH, ..., first_depth : first_depth + N_DEPTHS] = True
    lower = torch.arange(n_levels) > torch.arange(-1, n_levels)[:, None]
    frame[a.ANY, :, 1, first_level:end_of_cell] = frame[a.FIRST_LEVEL, :, 1, first_level:end_of_cell] = lower
    frame[a.ANY, ..., end_of_cell] = frame[a.EMPTY, ..., end_of_cell] = frame[a.DONE, ..., pad] = True
    takes_gene = torch.zeros(6, dtype=torch.bool)
    takes_gene[a.GENE] = takes_gene[a.ANY] = True
    return _Rules(*(table.to(device) for table in (kind, after, frame, takes_gene)))


class CellAutomaton:
    """Legal next ids of B cells that are being written, step by step.

    Each row is between ``<cell>`` and ``</cell>``, or done. All state is tensors on the logits' device; no Python per row.

    Parameters
    ----------
    vocabulary : Vocabulary
    device : where the logits are
    """

    DEPTH, FIRST_LEVEL, GENE, ANY, DONE, EMPTY = range(6)

    def __init__(self, vocabulary: Vocabulary, device: torch.device | str = "cpu"):
        self.vocabulary, self.device = vocabulary, torch.device(device)
        v = vocabulary
        self._columns = torch.arange(v.n_genes, dtype=torch.int32, device=self.device)
        self._levels = torch.arange(v.first_level, v.end_of_cell, device=self.device)
        self._rules = _rules(v.pad, v.first_depth, v.first_level, v.end_of_cell, v.first_gene, str(self.device))

    def begin(self, n_rows: int, *, panel: torch.Tensor | None = None, forced: Sequence[Sequence[tuple[int, int]]] = ()) -> None:
        """Every row has just read ``<cell>``.

        Parameters
        ----------
        panel : (n_genes,) or (B, n_genes) bool tensor, optional
            Genes that may appear, in all rows or in each; all when not given.
        forced : B lists of pairs (gene column, level id), or nothing
            Genes that each row's cell holds, each at its level and at no other.
        """
        v, device = self.vocabulary, self.device
        self._stand_at(torch.zeros(n_rows, 6, dtype=torch.long, device=device))
        self.last_gene[:], self.level[:] = -1, v.first_level - 1
        open_genes = torch.ones(v.n_genes, dtype=torch.bool) if panel is None else panel.bool()
        self.open_BG = open_genes.to(device).expand(n_rows, -1).clone()
        if n_rows and not bool(self.open_BG.any(1).all()):
            raise SentenceError("the panel allows no gene of this model's vocabulary; needed at least one")
        self._force(forced or [()] * n_rows)
        self.n_open[:] = self.open_BG.sum(1)

    def _stand_at(self, state_BF: torch.Tensor) -> None:
        """Where each row stands, in one tensor, phase and last gene first; its parts are views, and one operation takes rows of all."""
        self.state_BF = state_BF
        self.phase, self.last_gene, self.level, self.n_open, self.next_forced, self.n_forced = state_BF.unbind(1)

    def _force(self, forced: Sequence[Sequence[tuple[int, int]]]) -> None:
        """The genes that rows wait for, in the order of the sentence; (B, most of any row)."""
        n_rows, most, device = len(forced), max((len(pairs) for pairs in forced), default=0), self.device
        self.n_forced[:] = torch.tensor([len(pairs) for pairs in forced], dtype=torch.long, device=device)
        self.forced_column = torch.zeros(n_rows, most, dtype=torch.long, device=device)
        self.forced_level = torch.zeros(n_rows, most, dtype=torch.long, device=device)
        for row, pairs in enumerate(forced):
            for place, (column, level) in enumerate(sorted(pairs, key=lambda pair: (pair[1], pair[0]))):
                self.forced_column[row, place], self.forced_level[row, place] = column, level
                self.open_BG[row, column] = False

    def _awaited(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Whether each row still waits for a forced gene, its column and its level; (B,) each."""
        which_B1 = self.next_forced.clamp(max=self.forced_column.shape[1] - 1)[:, None]
        column, level = (forced.gather(1, which_B1).squeeze(1) for forced in (self.forced_column, self.forced_level))
        return self.next_forced < self.n_forced, column, level

    def legal(self, left: int | torch.Tensor | None = None) -> torch.Tensor:
        """Legal next ids; shape (B, vocabulary.size), bool. Rows that are done may only take ``<pad>``.

        ``left`` is how many ids each row may still take, this one included, one number or (B,): a row that runs out of room is
        closed in time.
        """
        v, rules = self.vocabulary, self._rules
        mask_BV = torch.empty(len(self.phase), v.size, dtype=torch.bool, device=self.device)
        mask_BV[:, : v.first_gene] = rules.frame[self.phase, self.level - (v.first_level - 1), (self.n_open > 0).long()]
        mask_BV[:, v.last_gene :] = False
        genes = mask_BV[:, v.first_gene : v.last_gene]
        torch.logical_and(self.open_BG, self._columns > self.last_gene[:, None].int(), out=genes)
        genes &= rules.takes_gene[self.phase][:, None]
        if self.forced_column.shape[1]:
            self._hold_to_forced(mask_BV)
        if left is not None:
            is_any = (self.phase == self.ANY)[:, None]
            left_B1 = torch.as_tensor(left, device=self.device).expand(len(self.phase))[:, None]
            mask_BV[:, v.first_level : v.end_of_cell] &= ~(is_any & (left_B1 <= 2))
            mask_BV[:, v.end_of_cell] |= (is_any & (left_B1 <= 2)).squeeze(1)
            mask_BV[:, v.first_gene : v.last_gene] &= ~(is_any & (left_B1 <= 1))
        return mask_BV

    def part(self, rows: torch.Tensor, first_column: int, vocabulary: Vocabulary) -> CellAutomaton:
        """Some rows that have passed by the genes before ``first_column``, of a vocabulary without those; to ask it for ``legal`` alone."""
        part = copy.copy(self)
        part.vocabulary, part._columns = vocabulary, self._columns[: vocabulary.n_genes]
        part.open_BG = self.open_BG[rows, first_column:]
        part._stand_at(self.state_BF[rows])
        if first_column:
            part.last_gene -= first_column
        if self.forced_column.shape[1]:
            part.forced_column, part.forced_level = self.forced_column[rows] - first_column, self.forced_level[rows]
        return part

    def _hold_to_forced(self, mask_BV: torch.Tensor) -> None:
        """Do not let a row pass by the next gene it must hold."""
        v = self.vocabulary
        mask_BV[:, v.first_depth] &= self.n_forced == 0
        waits, column, level = self._awaited()
        waits &= (self.phase != self.DONE) & (self.phase != self.DEPTH)
        here = waits & (self.level == level)
        mask_BV[:, v.end_of_cell] &= ~waits
        mask_BV[:, v.first_level : v.end_of_cell] &= ~(waits[:, None] & ((self._levels > level[:, None]) | here[:, None]))
        mask_BV[:, v.first_gene : v.last_gene] &= ~(here[:, None] & (self._columns > column[:, None].int()))
        rows = torch.nonzero(here).squeeze(1)
        mask_BV[rows, v.first_gene + column[rows]] = True
        # the level of the gene waited for is legal even where the panel leaves no other gene to put there
        rows = torch.nonzero(waits & ~here & ((self.phase == self.ANY) | (self.phase == self.FIRST_LEVEL))).squeeze(1)
        mask_BV[rows, level[rows]] = True

    def advance(self, ids_B: torch.Tensor, rows: torch.Tensor | None = None) -> None:
        """Read the id chosen for each row, or for some of them; illegal ids are the caller's fault and are not checked."""
        rows = torch.arange(len(ids_B), device=self.device) if rows is None else rows
        v, rules = self.vocabulary, self._rules
        was, last_gene, of_level, n_open, next_forced, n_forced = self.state_BF[rows].unbind(1)
        kind = rules.kind[ids_B.clamp(max=v.first_gene)]
        is_gene, is_level = (kind == GENE_ID) & (was != self.DONE), kind == LEVEL_ID
        column = torch.where(is_gene, ids_B - v.first_gene, 0)
        is_open = self.open_BG[rows, column]
        is_taken = is_open & is_gene
        self.open_BG[rows, column] = is_open ^ is_taken
        if self.forced_column.shape[1]:
            waits, awaited, level = (of_all[rows] for of_all in self._awaited())
            next_forced = next_forced + (is_gene & waits & (awaited == column) & (level == of_level)).long()
        last_gene = torch.where(is_gene, column, last_gene.masked_fill(is_level, -1))
        of_level = torch.where(is_level, ids_B, of_level)
        self.state_BF[rows] = torch.stack([rules.after[was, kind], last_gene, of_level, n_open - is_taken.long(), next_forced, n_forced], 1)

    @property
    def is_done(self) -> torch.Tensor:
        """Rows whose cell is closed; shape (B,), bool."""
        return self.phase == self.DONE

    def put(self, rows: torch.Tensor, begun: CellAutomaton) -> None:
        """Let some rows go on as those of another automaton stand."""
        most = begun.forced_column.shape[1]
        if most > self.forced_column.shape[1]:
            more = self.forced_column.new_zeros(len(self.phase), most - self.forced_column.shape[1])
            self.forced_column, self.forced_level = (torch.cat([part, more], 1) for part in (self.forced_column, self.forced_level))
        for name in ("forced_column", "forced_level"):
            getattr(self, name)[rows, :most] = getattr(begun, name)
        self.open_BG[rows], self.state_BF[rows] = begun.open_BG, begun.state_BF
