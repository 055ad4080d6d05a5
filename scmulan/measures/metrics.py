"""Every measure, in one namespace, by the question it answers.

    Are the labels right?                        annotation, calibration, mistakes, recognised_share
    Can a classifier tell generated from real?   two_sample_auc, mmd
    Do genes behave as in real cells?            gene_agreement, log_fold_change_agreement, depth_agreement
    Are training cells repeated?                 memorisation

The modules are ``annotation``, ``mistakes``, ``two_sample`` and ``agreement``, on the scales of ``counts``. Every result is a frozen
dataclass of plain numbers, strings, lists and dicts (GeneStatistics alone holds arrays): ``dataclasses.asdict`` of it is JSON.
What is undefined is None, never NaN.
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
from scmulan.measures.counts import GeneStatistics, gene_statistics, highly_variable, log_cp10k, pooled_components
from scmulan.measures.mistakes import Mistakes, mistakes
from scmulan.measures.two_sample import Memorisation, Mmd, TelltaleGene, TwoSample, memorisation, mmd, two_sample_auc

__all__ = [
    "Agreement",
    "Annotation",
    "Calibration",
    "ClassScore",
    "DepthAgreement",
    "GeneAgreement",
    "GeneStatistics",
    "LogFoldChangeAgreement",
    "Memorisation",
    "Mistakes",
    "Mmd",
    "PairAgreement",
    "Recognised",
    "ReliabilityBin",
    "TelltaleGene",
    "TwoSample",
    "annotation",
    "calibration",
    "depth_agreement",
    "gene_agreement",
    "gene_statistics",
    "highly_variable",
    "log_cp10k",
    "log_fold_change_agreement",
    "memorisation",
    "mistakes",
    "mmd",
    "pooled_components",
    "recognised_share",
    "two_sample_auc",
]
