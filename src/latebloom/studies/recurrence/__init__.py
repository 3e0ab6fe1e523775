"""Studies of recurrence: what memory inside a network is good for."""
