"""Bandits whose rewards depend on the past or come late, and exploration that pays for itself."""
