"""How a process is run: what was recorded, its traced program, compiled or on the host."""
