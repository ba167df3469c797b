"""Names of things, each a type of its own so that one cannot be passed for another.

`HostId` is made once, when a host joins; `HostName` is what people call it. An `Incarnation` numbers a host's boots
*as counted on one datastore*; an `Epoch` numbers the records of one register; a `LeaseTerm` numbers the unbroken runs of
renewals of one keeper session on one datastore; an `ElectionTerm` numbers primaries. A `Handover` names one
live migration. A `DiskId` names a file on a datastore.
"""

from typing import NewType

HostId = NewType("HostId", str)
HostName = NewType("HostName", str)
VmId = NewType("VmId", str)
VmName = NewType("VmName", str)
DatastoreName = NewType("DatastoreName", str)
DomainName = NewType("DomainName", str)
BootId = NewType("BootId", str)
KeeperSession = NewType("KeeperSession", str)
Nonce = NewType("Nonce", str)
Incarnation = NewType("Incarnation", int)
Epoch = NewType("Epoch", int)
LeaseTerm = NewType("LeaseTerm", int)
ElectionTerm = NewType("ElectionTerm", int)
RequestId = NewType("RequestId", int)
Handover = NewType("Handover", str)
DiskId = NewType("DiskId", str)

NO_TERM = LeaseTerm(0)
"""Before the first: nothing runs by right in it."""
NO_HANDOVER = Handover("")
"""The number of no migration."""

PRIMARY_REGISTER = "primary"
"""Subject of the register that says who is responsible for a datastore; every other subject is a VM's uuid."""
