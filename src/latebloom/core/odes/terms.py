"""Fields as other libraries write them."""

from __future__ import annotations

from typing import Any

import equinox as eqx


class WithArguments(eqx.Module):
    """A vector field f(t, y, args) or a Diffrax term, as a field of (t, y). Gradients reach arrays in both.

    - `term`: a function or module called with (t, y, args), or a term that has such a `vf`, as `diffrax.ODETerm`. A
      term with a control of its own (`diffrax.ControlTerm`, `MultiTerm`) is no ordinary differential equation.

    Raises `TypeError`, when called, for such a term.
    """

    term: Any
    args: Any = None

    def __call__(self, t: Any, y: Any) -> Any:
        if not hasattr(self.term, "vf"):
            return self.term(t, y, self.args)
        if hasattr(self.term, "control") or not hasattr(self.term, "vector_field"):
            raise TypeError(f"{type(self.term).__name__} is not the term of an ordinary differential equation: use its to_ode(), or an ODETerm")  # fmt: skip
        return self.term.vf(t, y, self.args)
