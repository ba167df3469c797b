"""The pure state machines. Each has `handle(event, now) -> list of effects` and `deadline() -> Instant or None`.

Nothing here reads a clock, a file, a socket or a random source, so the same code runs in production and in a simulator.
"""
