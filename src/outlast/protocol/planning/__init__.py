"""Where VMs go: pure decisions over immutable snapshots (`model/planning.py`), each with the reasons for it.

rulebook     which rules hold, and which contradict stronger ones
problem      a snapshot made ready for deciding fast
board        who is where, and what room is left, while a plan is made
planner      many VMs at once: greedy, then repaired
explaining   why a VM goes where it goes, or waits, host by host
exact        whether VMs can be placed at all: yes with a plan, no with a proof, or unknown
foretelling  what would come of a loss
starting     in which order the VMs of a plan would be started, and when
worst        which hosts would be the worst to lose, and how many losses the domain survives
admission    whether one more VM may be started

A snapshot of what an agent knows is taken by `protocol/domain_snapshot.py`.
"""
