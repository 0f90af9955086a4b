"""Every scorer once more, from its definition, in plain Python: slow, short and obvious.

A row is a list of numbers, one for each gene; a set is a list of positions in it. None of this
imports senoscore.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations

Row = Sequence[float]
Genes = Sequence[int]


def average_rank(row: Row, gene: int) -> Fraction:
    """Rank from the highest (1) down; ties share the mean of their ranks."""
    higher = sum(x > row[gene] for x in row)
    equal = sum(x == row[gene] for x in row)
    return higher + Fraction(equal + 1, 2)


def u_statistic(row: Row, genes: Genes, n_missing: int, max_rank: int) -> Fraction:
    """Andreatta & Carmona 2021: U as a fraction of its range, ranks cut off at max_rank."""
    n = len(genes) + n_missing
    if n == 0:
        return Fraction(0)
    ranks = [Fraction(max_rank)] * n_missing
    for gene in genes:
        undetected = row[gene] == 0 and min(row) >= 0
        ranks.append(
            Fraction(max_rank) if undetected else min(average_rank(row, gene), Fraction(max_rank))
        )
    best = sum(min(k, max_rank) for k in range(1, n + 1))
    return 1 - (sum(ranks) - best) / Fraction(n * max_rank - best)


def ucell(
    row: Row,
    up: Genes,
    down: Genes = (),
    n_missing: tuple[int, int] = (0, 0),
    max_rank: int = 1500,
    w_neg: float = 1.0,
) -> float:
    """U of the up genes less U of the down genes, not below zero."""
    if not len(up) + len(down):
        return math.nan
    u_up = u_statistic(row, up, n_missing[0], max_rank)
    u_down = u_statistic(row, down, n_missing[1], max_rank)
    return max(0.0, float(u_up) - w_neg * float(u_down))


def aucell(row: Row, genes: Genes, n_up: int, order: Sequence[int]) -> float:
    """Aibar et al. 2017: area under the recovery curve of the n_up highest genes, over the most.

    `order` breaks ties: of equal genes, the one that stands first in it ranks higher.
    """
    if not len(genes):
        return math.nan
    ranking = sorted(order, key=lambda gene: -row[gene])[: n_up - 1]
    area, recovered, most = 0, 0, 0
    for k, gene in enumerate(ranking, start=1):
        recovered += gene in genes
        area += recovered
        most += min(k, len(genes))
    return area / most


def aucell_any_order(row: Row, genes: Genes, n_up: int) -> float:
    """AUCell averaged over every order of all genes: only for rows of a few genes."""
    scores = [aucell(row, genes, n_up, order) for order in permutations(range(len(row)))]
    return math.fsum(scores) / len(scores)


def mean(row: Row, up: Genes, down: Genes = ()) -> float:
    """Mean of the genes, down genes negated; a NaN is not measured."""
    values = [row[g] for g in up] + [-row[g] for g in down]
    measured = [x for x in values if not math.isnan(x)]
    return math.fsum(measured) / len(measured) if measured else math.nan


def weighted_mean(row: Row, genes: Genes, weights: Sequence[float]) -> float:
    """Weighted mean of the genes."""
    return math.fsum(w * row[g] for g, w in zip(genes, weights, strict=True)) / math.fsum(weights)


def score_genes(row: Row, genes: Genes, controls: Genes) -> float:
    """Satija et al. 2015: mean of the genes less mean of the control genes."""
    return mean(row, genes) - mean(row, controls)
