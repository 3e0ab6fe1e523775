"""One network for every value of a setting."""
