"""When to warm up and when to decay."""
