"""How long a host's lease may be while the setting for it changes, and why nobody takes a VM too early meanwhile.

Hosts hear of new settings at different times, or never, if they are cut off. So an observer may not judge by its own
settings alone. Two things that it reads say how long to wait: the owner's heartbeat record, and the epoch of the VM's
register from which it will compare-and-swap. The longest of the three windows counts. The owner's part:

    the lease becomes shorter    at once, and also for the grant that is under way: the deadline is counted anew from the
                                 start of the write on which it rests. Only then does anything name the shorter window
    the lease becomes longer     first every VM that runs here gets a new epoch that names the longer window, while it
                                 runs; only then does a heartbeat write grant more

The interleavings that were feared, and that the simulated world tries (`sim/settings_ordeals.py`):

1. The owner of a lease of 20 s writes a record that says 6 s, and its storage hangs before it hears that the write was
   done. An observer that sees the record waits for 7.5 s, and the owner's deadline would be 20 s away. So the deadline is
   brought nearer before the write begins (mutant `a-shorter-lease-is-named-but-not-kept`).
2. The owner of a lease of 6 s makes it 20 s, and an older record, which a killed keeper's kernel still held, lands over
   the new one: it says 7.5 s, and its owner may run for 20. A heartbeat record can always be overwritten by an older one;
   an epoch cannot. So no lease is ever longer than what the VM's own epoch names (mutant `a-longer-lease-needs-no-epoch`),
   and observers look there (mutant `the-epoch-names-no-window`).
3. A link that names a short window has an unknown outcome, the setting is long again, and the link lands late. From the
   moment when it is issued until the next link is won, the VM counts as one with a short window.
4. A keeper dies after such a link: its successor counts on the lease that was written down for it (`Remember`) with the
   VM, and counts an adopted deadline from the write on which it rests, which is why the length is published with it.

An epoch that names a longer window than its owner needs costs time and nothing else; it is made anew as well.
"""

from collections.abc import Iterable

from outlast.model.settings import Settings
from outlast.model.time import Duration
from outlast.protocol.lease import Place
from outlast.protocol.ownership import Ownership


def longest_lease(wanted: Duration, homed: Iterable[Ownership]) -> Duration:
    """The lease that this host may take on a datastore with these VMs: what it wants, or the least that an epoch names."""
    return min([wanted, *(named for vm in homed if (named := vm.named_lease()) is not None)])


def fit(place: Place, settings: Settings, homed: Iterable[Ownership]) -> bool:
    """Make a lease as long as it may be. True if that has brought its end nearer: then it may be over by now."""
    place.lease.renew_every(settings.datastore_heartbeat_interval)
    return place.lease.take_length(longest_lease(settings.lease_duration, homed))
