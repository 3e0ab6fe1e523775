"""A process and how it unfolds: state, loop, checkpoints, memory of what was seen."""
