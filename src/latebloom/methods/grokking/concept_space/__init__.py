"""Concept space: when a conditional generator learns each concept, and what prompting hides."""

from latebloom.methods.grokking.concept_space.denoisers import Denoiser, MLPDenoiser, UNet
from latebloom.methods.grokking.concept_space.diffusion import (
    LinearSchedule,
    alpha_sigma,
    ancestral_sample,
    guided,
    losses,
    posterior,
    prior_kl,
)
from latebloom.methods.grokking.concept_space.drawing import draw_corners, draw_onset, draw_samples
from latebloom.methods.grokking.concept_space.interventions import (
    concept_direction,
    patch_embedding,
    placebo,
    steer,
)
from latebloom.methods.grokking.concept_space.landscape import landscape_trajectory, switch_time
from latebloom.methods.grokking.concept_space.learning import (
    ConceptSpace,
    Generator,
    ImageConceptSpace,
)
from latebloom.methods.grokking.concept_space.readers import (
    ConceptClassifier,
    VectorReader,
    classifier_report,
    shared_classifier,
    train_classifier,
)
from latebloom.methods.grokking.concept_space.trajectory import (
    Onset,
    capability_gap,
    change_point,
    checkpoints_in,
    concept_trajectory,
    hidden_capability_onset,
    learning_time,
    signed_area,
    smooth,
    turning_point,
)
from latebloom.methods.grokking.concept_space.worlds import (
    Discs,
    Vectors,
    mask_concept,
    training_set,
)

__all__ = [
    "ConceptClassifier",
    "ConceptSpace",
    "Denoiser",
    "Discs",
    "Generator",
    "ImageConceptSpace",
    "LinearSchedule",
    "MLPDenoiser",
    "Onset",
    "UNet",
    "VectorReader",
    "Vectors",
    "alpha_sigma",
    "ancestral_sample",
    "capability_gap",
    "change_point",
    "checkpoints_in",
    "classifier_report",
    "concept_direction",
    "concept_trajectory",
    "draw_corners",
    "draw_onset",
    "draw_samples",
    "guided",
    "hidden_capability_onset",
    "landscape_trajectory",
    "learning_time",
    "losses",
    "mask_concept",
    "patch_embedding",
    "placebo",
    "posterior",
    "prior_kl",
    "shared_classifier",
    "signed_area",
    "smooth",
    "steer",
    "switch_time",
    "train_classifier",
    "training_set",
    "turning_point",
]
