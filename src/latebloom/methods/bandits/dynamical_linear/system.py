"""Linear systems whose outputs are the reward: what an action brings at once, and what in the end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class LinearSystem:
    """x' = A x + B u + noise, outputs y = C x + D u + noise; the reward is the sum of the outputs.

    A [n, n], B [n, p], C [m, n], D [m, p]. Raises `ValueError` where the shapes do not fit.
    """

    A: Float[np.ndarray, "n n"]
    B: Float[np.ndarray, "n p"]
    C: Float[np.ndarray, "m n"]
    D: Float[np.ndarray, "m p"]

    def __post_init__(self) -> None:
        for name in "ABCD":
            object.__setattr__(self, name, np.asarray(getattr(self, name), float))
        n, p, m = len(self.A), self.B.shape[-1], len(self.C)
        shapes = (self.A.shape, self.B.shape, self.C.shape, self.D.shape)
        if shapes != ((n, n), (n, p), (m, n), (m, p)):
            raise ValueError(f"A, B, C, D must be [n, n], [n, p], [m, n], [m, p], not {shapes}")

    @property
    def omega(self) -> np.ndarray:
        """Reward for each unit of the state, [n]."""
        return self.C.sum(0)

    @property
    def theta(self) -> np.ndarray:
        """Reward that each unit of an action brings in its own round, [p]."""
        return self.D.sum(0)

    @property
    def spectral_radius(self) -> float:
        """The largest |eigenvalue| of A: what share of the state is left a round later, at most."""
        return float(np.abs(np.linalg.eigvals(self.A)).max(initial=0.0))

    @property
    def response(self) -> np.ndarray:
        """h = theta + Bᵀ (I - A)⁻ᵀ omega: reward a round of each unit of an action held for ever, [p].

        (Mussi, Metelli, Restelli 2023, arXiv:2211.08997: the cumulative Markov parameter.)
        """
        left = np.linalg.solve((np.eye(len(self.A)) - self.A).T, self.omega)
        return self.theta + self.B.T @ left

    @property
    def memory(self) -> float:
        """Rounds until a hundredth is left of what was: log(0.01) / log(spectral radius)."""
        radius = self.spectral_radius
        return 0.0 if radius == 0 else np.inf if radius >= 1 else np.log(1e-2) / np.log(radius)

    def transient_gain(self, powers: int = 200) -> float:
        """Phi = sup ‖Aⁱ‖₂ / rhoⁱ over i = 1 ... `powers`; 1 for A = 0, infinite for other nilpotent A."""
        radius = self.spectral_radius
        if radius == 0:
            return np.inf if self.A.any() else 1.0
        scaled, power, largest = self.A / radius, np.eye(len(self.A)), 0.0
        for _ in range(powers):
            power = power @ scaled
            largest = max(largest, float(np.linalg.norm(power, 2)))
        return largest

    def markov_parameters(self, lags: int) -> Float[np.ndarray, "lags+1 m p"]:
        """D, CB, CAB, ...: each output's response to one unit of each input, 0 ... `lags` rounds later."""
        state, found = self.B, [self.D]
        for _ in range(lags):
            found.append(self.C @ state)
            state = self.A @ state
        return np.stack(found)

    def simulate(
        self, inputs: Float[np.ndarray, "t p"], noise: float = 0.0, seed: int = 0
    ) -> Float[np.ndarray, "t m"]:
        """Outputs for a series of inputs, from x = 0, Gaussian noise in state and outputs."""
        n, m = len(self.A), len(self.C)
        heard = np.random.default_rng(seed).normal(0, noise, (len(inputs), n + m))
        state, states = np.zeros(n), np.zeros((len(inputs), n))
        driven = np.asarray(inputs, float) @ self.B.T + heard[:, :n]
        for t, push in enumerate(driven):
            states[t] = state
            state = self.A @ state + push
        return states @ self.C.T + np.asarray(inputs, float) @ self.D.T + heard[:, n:]


def synthetic_system() -> LinearSystem:
    """The synthetic system of the paper's experiments; its noise is 0.1, 0.01 or 0.001."""
    return LinearSystem(
        A=np.diag([0.2, 0.0, 0.1]),
        B=np.diag([0.45, 0.0, 0.1]),
        C=np.diag([1.0, 0.0, 0.1]),
        D=np.diag([0.0, 0.5, 0.1]),
    )


def advertising_system() -> LinearSystem:
    """The system that the paper's authors identified from an advertising company; noise 0.01."""
    return LinearSystem(
        A=np.array([[0.38, 0.33, 0.6], [0.07, 0.76, -0.54], [0.18, 0.34, 0.05]]),
        B=np.array([[0.14, 0.34, -0.05], [-0.17, 0.03, -0.01], [0.04, -0.09, 0.17]]),
        C=np.array([[0.25, -0.14, 0.01], [-0.55, 0.2, -0.13], [-0.31, -0.1, -0.01]]),
        D=np.array([[0.11, 0.1, 0.01], [0.01, 0.36, 0.01], [0.01, -0.05, 0.0]]),
    )


def budget_splits(
    campaigns: int = 3, budget: float = 1.5, cap: float = 1.0, floor: float = 0.0
) -> Float[np.ndarray, "k p"]:
    """The distinct ways to fill campaigns one after another up to `cap` until the budget is spent."""
    splits = []
    for order in permutations(range(campaigns)):
        split, left = np.full(campaigns, floor), budget - campaigns * floor
        for campaign in order:
            part = min(left, cap - floor)
            split[campaign] += part
            left -= part
        splits.append(split)
    return np.unique(np.array(splits), axis=0)


def capped_shares(
    weights: Float[np.ndarray, " p"], budget: float = 1.5, cap: float = 1.0
) -> Float[np.ndarray, " p"]:
    """A budget shared out by weights; what exceeds `cap` goes to the others in proportion."""
    shares = np.asarray(weights, float) / np.sum(weights)
    capped = shares > cap / budget
    shares[capped] = cap / budget
    shares[~capped] *= (1 - shares[capped].sum()) / shares[~capped].sum()
    return budget * shares


def expert_split() -> Float[np.ndarray, " 3"]:
    """The action of the advertising company's human experts: their budget shares, capped."""
    return capped_shares(np.array([1_641_952.0, 259_591_273.0, 716_354_611.0]))
