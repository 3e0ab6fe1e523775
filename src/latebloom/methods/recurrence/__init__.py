"""Recurrence: networks with a memory of their own, by their state or by delays of their connections."""
