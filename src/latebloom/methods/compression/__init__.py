"""When to prune, and where to start again."""
