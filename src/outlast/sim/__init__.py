"""The simulated world: the same machines as on real hosts, against simulated time, network, storage and hypervisors.

Nothing here repeats a rule of `protocol`: the world only carries out what machines ask for, sometimes late, sometimes not
at all, and knows at any moment what is true. What must be true is in `invariants.py`.
"""
