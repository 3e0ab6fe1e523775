"""Continual learning: what is forgotten, what comes back, and when."""
