"""Information bottleneck: what layers and weights keep, and whether it goes with the gap.

Kawaguchi, Deng, Ji, Huang (ICML 2023, arXiv 2305.18887).
"""

from latebloom.methods.information.bound import combined, gap_bound, summarise_layers
from latebloom.methods.information.correlations import (
    cluster_interval,
    correlation,
    correlation_table,
    partial_correlation,
    within_groups,
)
from latebloom.methods.information.profiles import Profiles, Trained, information_profiles
from latebloom.methods.information.representation import (
    NATS_PER_BIT,
    SIGMAS,
    Noise,
    binned_information,
    information,
    probe_with_noise,
)
from latebloom.methods.information.stochastic_training import (
    DeterministicMLP,
    InformationTraining,
    Instance,
    Resampled,
    StochasticMLP,
    blobs,
)
from latebloom.methods.information.weights import (
    Swag,
    cumulative_log_densities,
    kl_information,
    log_density,
    multi_seed_information,
    single_seed_information,
)

__all__ = [
    "NATS_PER_BIT",
    "SIGMAS",
    "DeterministicMLP",
    "InformationTraining",
    "Instance",
    "Noise",
    "Profiles",
    "Resampled",
    "StochasticMLP",
    "Swag",
    "Trained",
    "binned_information",
    "blobs",
    "cluster_interval",
    "combined",
    "correlation",
    "correlation_table",
    "cumulative_log_densities",
    "gap_bound",
    "information",
    "information_profiles",
    "kl_information",
    "log_density",
    "multi_seed_information",
    "partial_correlation",
    "probe_with_noise",
    "single_seed_information",
    "summarise_layers",
    "within_groups",
]
