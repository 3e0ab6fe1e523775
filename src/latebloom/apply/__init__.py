"""Finished methods on a user's own files: one module a study, found by its name."""
