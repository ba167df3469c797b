"""The simulated world: the same machines as on real hosts, against simulated time, network, storage and hypervisors."""
