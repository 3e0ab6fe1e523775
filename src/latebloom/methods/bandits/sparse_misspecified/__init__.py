"""Linear bandits whose model is off by epsilon: what a sparse parameter is worth."""

from latebloom.methods.bandits.sparse_misspecified.design import Design, g_optimal_design
from latebloom.methods.bandits.sparse_misspecified.nets import (
    EpsilonTooSmall,
    Found,
    NetElimination,
    ball_net,
    net_elimination,
    net_elimination_unknown_epsilon,
    net_search,
    net_size,
    repeats_needed,
)
from latebloom.methods.bandits.sparse_misspecified.problem import Problem, Queries, queries
from latebloom.methods.bandits.sparse_misspecified.recovery import l1_minimiser, l1_recovery

__all__ = [
    "Design",
    "EpsilonTooSmall",
    "Found",
    "NetElimination",
    "Problem",
    "Queries",
    "ball_net",
    "g_optimal_design",
    "l1_minimiser",
    "l1_recovery",
    "net_elimination",
    "net_elimination_unknown_epsilon",
    "net_search",
    "net_size",
    "queries",
    "repeats_needed",
]
