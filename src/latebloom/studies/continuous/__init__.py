"""Studies of learning in continuous time."""
