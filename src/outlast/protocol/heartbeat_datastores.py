"""Which datastores are associated with a host for its verdict: the accessibility score of the claim.

Method: US patent 8,924,967, first claim: rank the datastores by accessibility, discard those below a threshold; the score
rests on (1) how many hosts reach the datastore, (2) whether it is on the same storage device as one already chosen, and
(3) its file-system type. We use all three:

    reach        0..70   the share of the domain's hosts that reach it
    device       0..20   20 if no chosen datastore is on the same storage device: one array's failure must not hide a host
    file system  0..10   how well the type serves records that several hosts rewrite and reread

Scores are integers from 0 to 100. The choice is greedy: the best first; then the device part of the rest is judged again.
"""

import msgspec

from outlast.model.ids import DatastoreName, HostId
from outlast.model.inventory import DatastoreReach

REACH_POINTS = 70
DEVICE_POINTS = 20
FILESYSTEM_POINTS = {
    "nfs": 10, "nfs4": 10, "cephfs": 9, "ceph": 9, "gfs2": 9, "ocfs2": 9, "glusterfs": 8, "fuse.glusterfs": 8,
}  # fmt: skip
OTHER_FILESYSTEM_POINTS = 4


class Scored(msgspec.Struct, frozen=True):
    """One datastore's score for one host: its three parts, whether it was chosen, and why in a sentence."""

    datastore: DatastoreName
    score: int
    reach_points: int
    device_points: int
    filesystem_points: int
    chosen: bool
    why: str


def choose(
    host: HostId,
    reach: dict[HostId, tuple[DatastoreReach, ...]],
    per_host: int,
    threshold: int,
) -> tuple[Scored, ...]:
    """Rank what `host` reaches, best first; `reach` is the whole domain's inventory. Pure and deterministic."""
    mine = {r.datastore: r for r in reach.get(host, ()) if r.reachable}
    hosts = max(1, len(reach))
    reached_by = {
        name: sum(any(r.datastore == name and r.reachable for r in theirs) for theirs in reach.values()) for name in mine
    }
    chosen_devices: set[str] = set()
    ranked: list[Scored] = []
    left = dict(mine)
    while left:
        scores = [_score(left[name], reached_by[name], hosts, chosen_devices) for name in sorted(left)]
        best = max(scores, key=lambda s: (s.score, -sorted(left).index(s.datastore)))
        passed = best.score >= threshold
        chosen = passed and sum(s.chosen for s in ranked) < per_host
        ranked.append(msgspec.structs.replace(best, chosen=chosen, why=_why(best, passed, chosen, threshold, per_host)))
        if chosen and mine[best.datastore].device:
            chosen_devices.add(mine[best.datastore].device)
        del left[best.datastore]
    return tuple(ranked)


def _score(reach: DatastoreReach, reached_by: int, hosts: int, chosen_devices: set[str]) -> Scored:
    reach_points = REACH_POINTS * reached_by // hosts
    device_points = 0 if reach.device and reach.device in chosen_devices else DEVICE_POINTS
    filesystem_points = FILESYSTEM_POINTS.get(reach.filesystem.lower(), OTHER_FILESYSTEM_POINTS)
    total = reach_points + device_points + filesystem_points
    why = (
        f"{reached_by} of {hosts} hosts reach it (+{reach_points}); "
        + (
            f"shares the device {reach.device} with one already chosen (+0)"
            if not device_points
            else f"a storage device of its own (+{device_points})"
        )
        + f"; file system {reach.filesystem or 'unknown'} (+{filesystem_points})"
    )
    return Scored(reach.datastore, total, reach_points, device_points, filesystem_points, False, why)


def _why(scored: Scored, passed: bool, chosen: bool, threshold: int, per_host: int) -> str:
    if chosen:
        end = "chosen"
    elif not passed:
        end = f"discarded: below the threshold of {threshold}"
    else:
        end = f"not needed: {per_host} are chosen already"
    return f"{scored.why}: {scored.score} points, {end}"
