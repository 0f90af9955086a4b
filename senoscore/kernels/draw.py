"""Draw the counts of simulated cells: arrays in, sparse rows out, one random stream per cell.

A negative binomial count of mean mu and size r is a Poisson number of logarithmic clumps, with
rate r log(1 + mu/r). So a cell costs one walk along its genes plus a few operations per molecule:
molecules fall as a Poisson process of rate mu on the gene axis, each is kept with probability
log(1 + t)/t for t = mu/r, and each one kept becomes a logarithmic count. Genes that get no molecule
are never drawn, and the law is exact (tests compare it with ``scipy.stats.nbinom``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from senoscore.kernels._numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# how the activity of a programme is drawn for one cell
STATE, OWN, STRESS, DAMAGE = 0, 1, 2, 3

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT = 1.0 / 9007199254740992.0


@njit
def _mix(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@njit
def _uniform(state: NDArray[np.uint64]) -> float:
    """In (0, 1]: safe for a logarithm."""
    state[0] += _GOLDEN
    return ((_mix(state[0]) >> _S11) + 1.0) * _TO_UNIT


@njit
def _normal(state: NDArray[np.uint64]) -> float:
    radius = math.sqrt(-2.0 * math.log(_uniform(state)))
    return radius * math.cos(2.0 * math.pi * _uniform(state))


@njit
def _logarithmic(state: NDArray[np.uint64], p: float, log_q: float) -> int:
    """Kemp's LK algorithm; ``log_q`` is log(1 - p)."""
    while True:
        v = _uniform(state)
        if v >= p:
            return 1
        q = -math.expm1(log_q * _uniform(state))
        if v > q:
            return 1
        if v > q * q:
            return 2
        k = math.floor(1.0 + math.log(v) / math.log(q))
        if k >= 1:
            return int(k)


@njit
def add_negative_binomial(
    weights: NDArray[np.float64],
    total: float,
    size: NDArray[np.float32],
    state: NDArray[np.uint64],
    counts: NDArray[np.int32],
) -> None:
    """Add to ``counts`` one draw with mean ``total * weights / sum(weights)`` and size ``size``."""
    summed = 0.0
    for g in range(weights.size):
        summed += weights[g]
    scale = total / summed
    position = 0.0
    event = -math.log(_uniform(state))
    for g in range(weights.size):
        mean = weights[g] * scale
        position += mean
        if event >= position:
            continue
        t = mean / size[g]
        log_t = math.log1p(t)
        keep = log_t / t if t > 1e-9 else 1.0
        p = t / (1.0 + t)
        while event < position:
            if _uniform(state) <= keep:
                counts[g] += _logarithmic(state, p, -log_t)
            event -= math.log(_uniform(state))


@njit
def draw_cells(
    first: int,
    seed: np.uint64,
    population: NDArray[np.int16],
    partner: NDArray[np.int16],
    sample: NDArray[np.int16],
    depth: NDArray[np.float32],
    partner_depth: NDArray[np.float32],
    ambient: NDArray[np.float32],
    damaged: NDArray[np.bool_],
    donor_of_sample: NDArray[np.int16],
    sample_stress: NDArray[np.float32],
    base: NDArray[np.float32],
    donor_factor: NDArray[np.float32],
    size: NDArray[np.float32],
    profile_of_population: NDArray[np.int16],
    slot_start: NDArray[np.int64],
    slot_programme: NDArray[np.int16],
    slot_mean: NDArray[np.float32],
    slot_sd: NDArray[np.float32],
    slot_kind: NDArray[np.int8],
    programme_start: NDArray[np.int64],
    programme_gene: NDArray[np.int32],
    programme_log: NDArray[np.float32],
    programme_add: NDArray[np.float32],
    ambient_sum: NDArray[np.float64],
    out_length: NDArray[np.int64],
    out_indices: NDArray[np.int32],
    out_data: NDArray[np.float32],
) -> int:
    """Fill the sparse rows of the cells given; ``first`` is the number of the first of them.

    The stream of a cell depends on ``seed`` and its number alone, so blocks do not matter.
    Returns the number of values written; the outputs must hold ``n_cells * n_genes``.
    """
    n_genes = size.size
    counts = np.zeros(n_genes, np.int32)
    weights = np.empty(n_genes, np.float64)
    state = np.empty(1, np.uint64)
    written = 0
    for i in range(population.size):
        state[0] = _mix(_mix(seed + _GOLDEN) ^ (np.uint64(first + i) * _MIX_1))
        s = sample[i]
        donor = donor_of_sample[s]
        for part in range(2):
            who = population[i] if part == 0 else partner[i]
            if who < 0:
                continue
            total = depth[i] if part == 0 else partner_depth[i]
            profile = profile_of_population[who]
            for g in range(n_genes):
                weights[g] = base[profile, g] * donor_factor[donor, g]
            for slot in range(slot_start[who], slot_start[who + 1]):
                kind = slot_kind[slot]
                if kind == DAMAGE and not damaged[i]:
                    continue
                z = _normal(state) * slot_sd[slot]
                if kind == OWN:
                    activity = z
                else:
                    activity = slot_mean[slot] * math.exp(z - 0.5 * slot_sd[slot] ** 2)
                if kind == STRESS:
                    activity *= sample_stress[s]
                programme = slot_programme[slot]
                for j in range(programme_start[programme], programme_start[programme + 1]):
                    g = programme_gene[j]
                    weights[g] = (
                        weights[g] * math.exp(activity * programme_log[j])
                        + activity * programme_add[j]
                    )
            add_negative_binomial(weights, total * (1.0 - ambient[i]), size, state, counts)
        lam = (depth[i] + partner_depth[i]) * ambient[i]
        event = -math.log(_uniform(state))
        while event < lam:
            low, high = 0, n_genes - 1
            while low < high:
                middle = (low + high) // 2
                if ambient_sum[s, middle] > event / lam:
                    high = middle
                else:
                    low = middle + 1
            counts[low] += 1
            event -= math.log(_uniform(state))
        begin = written
        for g in range(n_genes):
            if counts[g] > 0:
                out_indices[written] = g
                out_data[written] = counts[g]
                written += 1
                counts[g] = 0
        out_length[i] = written - begin
    return written
