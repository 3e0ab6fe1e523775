"""When to warm up, decay, stop, prune and listen."""
