"""Questions that lean on the one before: "and the T cells only?", "what about the lung?", "now with 50", "and in cluster 4?".

They name what differs and leave the rest as it was. The names are looked up in the tables, as those of any request are; a question that
names nothing which the request before takes is read as a question of its own.
"""

from __future__ import annotations

import re
from dataclasses import replace

from scmulan.requests import GeneAsked, Request, RequestGrammar
from scmulan.requests_names import gene_of, name_of
from scmulan.requests_numbers import number_of

LEAD = re.compile(r"^(?:and|but|or|now|then|ok|okay|so)?[,\s]*(?:what about|how about|the same|same|again|only|just)?[,\s]*", re.IGNORECASE)
TAIL = re.compile(r"[\s,]*(?:only|alone|instead|too|as well|then|please|again)?[\s?.!]*$", re.IGNORECASE)
PLACE = re.compile(r"^(?:in|for|of|from|with|by|at|among|on|to)\s+", re.IGNORECASE)
CLUSTER = re.compile(r"^(?:the\s+)?cluster\s+(?P<name>[\w-]+)$", re.IGNORECASE)
NUMBER = re.compile(r"^(?P<number>[\w-]+)(?:\s+(?:of them|of those|cells|genes|more))?$", re.IGNORECASE)
MOST_WORDS = 9
LOOKED_UP = ("cell_type", "organ", "region", "disease", "organism", "assay", "stage", "sex", "time", "perturbation")
"""Fields in which a name is looked for, in this order."""


def leans(question: str) -> bool:
    """Whether a question can be one that leans on another: it is short and begins so.

    >>> leans("and the T cells only?"), leans("which organ are these cells from?")
    (True, False)
    """
    lead = LEAD.match(question.strip())
    return bool(lead and lead[0].strip(" ,")) and len(question.split()) <= MOST_WORDS


def follow(before: Request, question: str, grammar: RequestGrammar) -> Request | None:
    """The request before with what a question changes in it; None where the question is one of its own.

    Examples
    --------
    >>> from scmulan.requests import load_grammar
    >>> grammar = load_grammar(["organ", "cell_type"])
    >>> str(follow(Request(task="annotate"), "and the T cells only?", grammar))
    "annotate cell_type='T cell'"
    >>> str(follow(Request(task="generate", fields={"organ": "lung"}, number=10), "now 20 of them", grammar))
    "generate organ='lung' number=20"
    """
    if not leans(question):
        return None
    said = TAIL.sub("", LEAD.sub("", question.strip(), count=1), count=1)
    said = PLACE.sub("", said.strip())
    if not said:
        return None
    task = before.task
    cluster, number = CLUSTER.match(said), NUMBER.match(said)
    if cluster and grammar.allows(task, "cluster"):
        return replace(before, cluster=cluster["name"])
    if number and grammar.allows(task, "number") and (n := number_of(number["number"])) is not None:
        return replace(before, number=n)
    for field in LOOKED_UP:
        if field in grammar.fields and grammar.allows(task, field) and (name := name_of(field, said)).is_known:
            return replace(before, fields={**before.fields, field: name.value})
    gene = gene_of(said)
    if before.genes and gene.is_known and grammar.allows(task, "genes"):
        return replace(before, genes=(GeneAsked(name=gene.value, count=before.genes[0].count, action=before.genes[0].action),))
    return None
