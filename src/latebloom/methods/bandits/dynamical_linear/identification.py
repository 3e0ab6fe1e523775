"""From a record of inputs and outputs to a linear system: lagged regression, then Ho-Kalman."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from latebloom.core.process import HostProcess, Quantity
from latebloom.methods.bandits.dynamical_linear.system import LinearSystem

Method = Literal["fir", "arx", "predictor"]
MOST_ORDER = 10


@dataclass(frozen=True, eq=False)
class Design:
    """A record as a regression of outputs [rows, m] on lagged columns [rows, q].

    The columns: inputs now and 1 ... `lags` periods ago, then (unless the method is "fir") the
    outputs 1 ... `lags` periods ago, and last the constants (one, or one for each phase of a season)
    and perhaps a straight line in time, from -1 to 1.
    """

    columns: Float[np.ndarray, "rows q"]
    outputs: Float[np.ndarray, "rows m"]
    inputs: int
    lags: int
    method: Method

    def coefficients(self, ridge: float = 0.0) -> np.ndarray:
        """Least squares [q, m]; constants and trend are not shrunk by the ridge.

        By the normal equations: long records then leave no large factorisation, on which threads
        would wait for each other. Directions that the record does not excite stay at zero.
        """
        gram, moment = self._normal(ridge, slice(None))
        values, vectors = np.linalg.eigh(gram)
        kept = values > 1e-13 * values[-1]
        vectors = vectors[:, kept]
        return vectors @ ((vectors.T @ moment) / values[kept, None])

    def resampled(self, rows: np.ndarray, ridge: float = 0.0) -> np.ndarray:
        """The same on rows drawn with repetition, by a plain solver, which is faster."""
        gram, moment = self._normal(ridge, rows)
        return np.linalg.solve(gram + 1e-9 * np.eye(len(gram)), moment)

    def _normal(self, ridge: float, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        x, penalty = self.columns[rows], np.zeros(self.columns.shape[1])
        penalty[: self.lagged] = ridge
        return x.T @ x + np.diag(penalty), x.T @ self.outputs[rows]

    @property
    def lagged(self) -> int:
        """Columns before the constants."""
        p, m = self.inputs, self.outputs.shape[1]
        return p * (self.lags + 1) + (0 if self.method == "fir" else m * self.lags)


def design(
    inputs: Float[np.ndarray, "t p"], outputs: Float[np.ndarray, "t m"], lags: int,
    method: Method = "arx", *, season: int = 1, trend: bool = False,
) -> Design:  # fmt: skip
    """The regression of a record; its first `lags` periods serve as past only."""
    periods = len(inputs)
    shifted = [inputs[lags - i : periods - i] for i in range(lags + 1)]
    if method != "fir":
        shifted += [outputs[lags - i : periods - i] for i in range(1, lags + 1)]
    phases = np.eye(season)[np.arange(lags, periods) % season]
    line = [np.linspace(-1, 1, periods)[lags:, None]] if trend else []
    return Design(
        np.hstack([*shifted, phases, *line]), outputs[lags:], inputs.shape[1], lags, method
    )


def ho_kalman(
    markov: Float[np.ndarray, "lags m k"], order: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A, B, C with C Aⁱ B near `markov`[i], and the singular values of its Hankel matrix.

    `order` is the number of states; None takes it where the singular values drop most. (Ho and
    Kalman 1966: the truncated SVD of the Hankel matrix is observability times controllability.)
    """
    lags, m, k = markov.shape
    high = (lags + 1) // 2
    wide = lags + 1 - high
    hankel = np.block([[markov[i + j] for j in range(wide)] for i in range(high)])
    before, after = hankel[:, : -k or None], hankel[:, k:]
    left, values, right = np.linalg.svd(before, full_matrices=False)
    n = order_by_drop(values) if order is None else min(order, len(values))
    root = np.sqrt(values[:n])
    observability, controllability = left[:, :n] * root, root[:, None] * right[:n]
    A = np.linalg.pinv(observability) @ after @ np.linalg.pinv(controllability)
    return A, controllability[:, :k], observability[:m], values


def order_by_drop(values: Float[np.ndarray, " n"], most: int = MOST_ORDER) -> int:
    """The order after which the singular values fall by the largest factor."""
    floor = np.maximum(values, values[0] * 1e-12)
    last = min(most, len(floor) - 1)
    return int(np.argmax(floor[:last] / floor[1 : last + 1])) + 1 if last else 1


def parts(made: Design, coefficients: Float[np.ndarray, "q m"]) -> tuple[np.ndarray, ...]:
    """Fitted coefficients of inputs [lags + 1, m, p], and of past outputs [lags or 0, m, m]."""
    p, m, lags = made.inputs, made.outputs.shape[1], made.lags
    inputs = coefficients[: p * (lags + 1)].reshape(lags + 1, p, m)
    own = coefficients[p * (lags + 1) : made.lagged].reshape(-1, m, m)
    return inputs.transpose(0, 2, 1), own.transpose(0, 2, 1)


def impulse_response(
    driven: Float[np.ndarray, "lags+1 m p"], own: Float[np.ndarray, "lags m m"], length: int
) -> Float[np.ndarray, "length m p"]:
    """Responses 0 ... `length` - 1 periods after one unit, by running the regression forward."""
    found = np.zeros((length, *driven.shape[1:]))
    for k in range(length):
        found[k] = driven[k] if k < len(driven) else 0.0
        for i in range(1, min(k, len(own)) + 1):
            found[k] += own[i - 1] @ found[k - i]
    return found


def system_of(
    made: Design, coefficients: Float[np.ndarray, "q m"], order: int | None = None
) -> tuple[LinearSystem, np.ndarray]:
    """The system behind fitted coefficients, and the singular values that its order is read from.

    - "fir": the coefficients are D and C Aⁱ B.
    - "arx": the regression's own impulse response, four times as long as its lags, is.
    - "predictor": the regression predicts one step ahead, y = C x + D u with
      x' = (A - F C) x + (B - F D) u + F y; its coefficients C (A - F C)ⁱ [F, B - F D] are realised
      together, and A and B follow.
    """
    driven, own = parts(made, coefficients)
    if made.method == "predictor":
        m, D = len(driven[0]), driven[0]
        inner, both, C, values = ho_kalman(np.concatenate([own, driven[1:]], axis=2), order)
        F = both[:, :m]
        return LinearSystem(inner + F @ C, both[:, m:] + F @ D, C, D), values
    response = driven
    if made.method == "arx":
        response = impulse_response(driven, own, 4 * made.lags + 1)
    A, B, C, values = ho_kalman(response[1:], order)
    return LinearSystem(A, B, C, response[0]), values


def steady_gain(made: Design, coefficients: Float[np.ndarray, "q m"]) -> np.ndarray:
    """Outputs a period for each unit of each input held for ever, [m, p], without any truncation."""
    driven, own = parts(made, coefficients)
    return np.linalg.solve(np.eye(driven.shape[1]) - own.sum(0), driven.sum(0))


@dataclass(frozen=True, eq=False)
class Identified:
    """A system found in a record, in the record's own units.

    `values` are the Hankel singular values (of inputs and outputs in standard deviations), `gain`
    the steady response [m, p] straight from the regression and `impulse` [61, m, p] its response to
    one unit 0, 1, ... periods later, `fitted` the one-step predictions from period `lags` on.
    """

    system: LinearSystem
    order: int
    lags: int
    method: Method
    values: np.ndarray
    gain: np.ndarray
    impulse: np.ndarray
    fitted: np.ndarray


def identify(
    inputs: Float[np.ndarray, "t p"], outputs: Float[np.ndarray, "t m"], *, lags: int,
    method: Method = "arx", order: int | None = None, ridge: float = 0.0, season: int = 1,
    trend: bool = False,
) -> Identified:  # fmt: skip
    """Identify a linear system from a record of inputs and outputs.

    "fir" regresses outputs on the last `lags` inputs, which must reach as far as the memory does;
    "arx" on past outputs too, for which few lags will do; "predictor" is the realisation that the
    authors of Dynamical Linear Bandits (Mussi, Metelli, Restelli 2023) used. `ridge` is on standardised columns, for
    each of them as so many periods; `season` > 1 gives each phase of a season its own constant, and
    `trend` adds a straight line in time, without which growth passes for a memory that never ends.

    Raises `ValueError` for fewer than two lags and a record too short for them.
    """
    inputs, outputs = np.asarray(inputs, float), np.asarray(outputs, float)
    if lags < 2:
        raise ValueError(f"lags must be at least 2, not {lags}")
    in_unit, out_unit = inputs.std(0), outputs.std(0)
    made = design(inputs / in_unit, outputs / out_unit, lags, method, season=season, trend=trend)
    if len(made.columns) < made.columns.shape[1]:
        raise ValueError(
            f"{len(inputs)} periods are too few for {lags} lags: their regression has"
            f" {made.columns.shape[1]} unknowns and {len(made.columns)} rows"
        )
    coefficients = made.coefficients(ridge)
    scaled, values = system_of(made, coefficients, order)
    system = LinearSystem(
        scaled.A,
        scaled.B / in_unit,
        out_unit[:, None] * scaled.C,
        out_unit[:, None] * scaled.D / in_unit,
    )
    gain = out_unit[:, None] * steady_gain(made, coefficients) / in_unit
    driven, own = parts(made, coefficients)
    impulse = out_unit[:, None] * impulse_response(driven, own, 61) / in_unit
    fitted = made.columns @ coefficients * out_unit
    return Identified(system, len(system.A), lags, method, values, gain, impulse, fitted)


class Identification(HostProcess):
    """Identifies a system from ever longer records of its randomly scaled actions [k, p].

    Step k has 100 · 2ᵏ periods. Observed: the distance of the response found from the true one,
    and the steady reward lost a round by the action that looks best. Of a system that comes out
    unstable only the response at once is used.
    """

    def __init__(
        self, system: LinearSystem, actions: Float[np.ndarray, "k p"], noise: float, *,
        method: Method = "arx", order: int | None = None,
    ):  # fmt: skip
        self.system, self.actions, self.noise = system, actions, noise
        self.method: Method = method
        self.order = order

    def init(self, seed: int) -> tuple[int, int]:
        return (seed, 0)

    def step(self, state: tuple[int, int]) -> tuple[int, int]:
        return (state[0], state[1] + 1)

    def observe(self, state: tuple[int, int]) -> dict[str, Any]:
        seed, doubling = state
        rng, periods = np.random.default_rng(seed), 100 * 2**doubling
        chosen = self.actions[rng.integers(len(self.actions), size=periods)]
        inputs = chosen * rng.uniform(0.5, 1.5, (periods, 1))
        outputs = self.system.simulate(inputs, self.noise, seed)
        lags = 20 if self.method == "fir" else 8
        found = identify(inputs, outputs, lags=lags, method=self.method, order=self.order).system
        response = found.response if found.spectral_radius < 1 else found.theta
        steady = self.actions @ self.system.response
        lost = steady.max() - steady[np.argmax(self.actions @ response)]
        distance = float(np.linalg.norm(response - self.system.response))
        return {"regret": lost, "distance": distance, "periods": periods}

    def quantities(self) -> dict[str, Quantity]:
        return {"distance": Quantity("reward", about="distance of the response from the true one")}
