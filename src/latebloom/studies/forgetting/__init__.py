"""Studies of forgetting: tasks one after the other, and what keeps the earlier ones."""
