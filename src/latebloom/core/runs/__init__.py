"""How a process is run: what was recorded, its traced program, compiled or on the host."""

# Raised when a loop around a process changes the bits of a trace; tests hold some fixed.
LOOP_VERSION = 2
