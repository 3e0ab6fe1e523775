"""Payments: a policy that is retrained on its own logs, generation after generation."""
