"""Every measure, in one namespace, by the question it answers.

    Are the labels right?                        annotation, calibration, mistakes, recognised_share
    Can a classifier tell generated from real?   two_sample_auc, mmd
    Do genes behave as in real cells?            gene_agreement, log_fold_change_agreement, depth_agreement
    Are training cells repeated?                 memorisation
    Is a change foretold?                        compare_changes, score_change, noise_ceiling, population_distance
    Which perturbation was it?                   identification
    Where does a cell go?                        next_state_score, fate_score

The modules are ``annotation``, ``mistakes``, ``two_sample``, ``agreement``, ``change``, ``change_noise``, ``populations``, ``shift``,
``next_state`` and ``fate``, on the scales of ``counts``. Every result is a frozen dataclass of plain numbers, strings, lists and dicts;
what is handed on to another measure holds arrays. ``dataclasses.asdict`` of a result is JSON. What is undefined is None, never NaN.
"""

from scmulan.measures.agreement import (
    Agreement,
    DepthAgreement,
    GeneAgreement,
    LogFoldChangeAgreement,
    PairAgreement,
    depth_agreement,
    gene_agreement,
    log_fold_change_agreement,
)
from scmulan.measures.annotation import (
    Annotation,
    Calibration,
    ClassScore,
    Recognised,
    ReliabilityBin,
    annotation,
    calibration,
    recognised_share,
)
from scmulan.measures.change import (
    Change,
    ChangeComparison,
    ChangeScore,
    TrueChange,
    change_between,
    compare_changes,
    disjoint_halves,
    score_change,
    true_change,
)
from scmulan.measures.change_noise import Ceiling, Interval, intervals, noise_ceiling, redrawn_truths, share_better
from scmulan.measures.counts import GeneStatistics, gene_statistics, highly_variable, log_cp10k, pooled_components
from scmulan.measures.fate import Fates, FateScore, clone_folds, fate_score
from scmulan.measures.mistakes import Mistakes, mistakes
from scmulan.measures.next_state import Followed, NextStateScore, next_state_score
from scmulan.measures.populations import CellSpace, PopulationDistance, cell_space, population_distance
from scmulan.measures.shift import Identification, Population, draw_populations, identification
from scmulan.measures.two_sample import Memorisation, Mmd, TelltaleGene, TwoSample, memorisation, mmd, two_sample_auc

__all__ = [
    "Agreement",
    "Annotation",
    "Calibration",
    "Ceiling",
    "CellSpace",
    "Change",
    "ChangeComparison",
    "ChangeScore",
    "ClassScore",
    "DepthAgreement",
    "FateScore",
    "Fates",
    "Followed",
    "GeneAgreement",
    "GeneStatistics",
    "Identification",
    "Interval",
    "LogFoldChangeAgreement",
    "Memorisation",
    "Mistakes",
    "Mmd",
    "NextStateScore",
    "PairAgreement",
    "Population",
    "PopulationDistance",
    "Recognised",
    "ReliabilityBin",
    "TelltaleGene",
    "TrueChange",
    "TwoSample",
    "annotation",
    "calibration",
    "cell_space",
    "change_between",
    "clone_folds",
    "compare_changes",
    "depth_agreement",
    "disjoint_halves",
    "draw_populations",
    "fate_score",
    "gene_agreement",
    "gene_statistics",
    "highly_variable",
    "identification",
    "intervals",
    "log_cp10k",
    "log_fold_change_agreement",
    "memorisation",
    "mistakes",
    "mmd",
    "next_state_score",
    "noise_ceiling",
    "pooled_components",
    "population_distance",
    "recognised_share",
    "redrawn_truths",
    "score_change",
    "share_better",
    "true_change",
    "two_sample_auc",
]
