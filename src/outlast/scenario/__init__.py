"""Scenarios: one language, two worlds. Read here; played by `sim` in virtual time and by `lab` on real hosts."""
