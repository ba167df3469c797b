"""Values only: what the other floors speak about. Nothing here reads a clock, a file or a socket."""
