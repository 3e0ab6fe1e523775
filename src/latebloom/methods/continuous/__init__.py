"""Continuous: networks that are differential equations, what their solutions cost, and how they learn to cost less."""
