"""Forgetting: continual learning on streams of tasks, the methods against it, and how it is measured."""
