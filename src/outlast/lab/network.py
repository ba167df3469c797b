"""The lab's network: one bridge in a namespace of its own, a cable to each host, and faults on them.

Each host has a fresh network namespace at each boot, with eth0 as one end of a cable; the other end is a bridge port with
the host's name. The bridge has the isolation address, which answers pings and nothing else is asked of it.

Faults are nftables rules in the bridge's namespace, written anew from the whole set of faults by each command, as one
transaction: what `ruleset` returns is what holds, and no order of commands can leave a rule behind. A host with a cut
network keeps its link: nothing tells it that its packets are lost.

pyroute2 makes the bridge and the cables; it takes a while to import, so that the commands that only make faults do
without it.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import msgspec

from outlast.lab.errors import LabError
from outlast.lab.layout import BRIDGE, ISOLATION_ADDRESS, PREFIX_LENGTH, Layout

NAMESPACE_DIRECTORY = Path("/run/netns")
_TABLE = "outlast_lab"


class NetworkFaults(msgspec.Struct, omit_defaults=True):
    """Everything that is wrong with the network now."""

    cut: set[str] = msgspec.field(default_factory=set)  # hosts that nothing reaches, and that reach nothing
    muted: set[str] = msgspec.field(default_factory=set)  # hosts whose packets are lost, but that hear
    one_way: set[tuple[str, str]] = msgspec.field(default_factory=set)  # packets from the first host to the second are lost
    loss: dict[str, int] = msgspec.field(default_factory=dict)  # host -> percent of its packets lost, each way
    isolation_address_cut: bool = False
    dead: set[str] = msgspec.field(default_factory=set)  # without power: a dying kernel's FIN, RST are lost


def ruleset(faults: NetworkFaults) -> str:
    """The nftables rules that make these faults, as one transaction that replaces the ones before."""
    ingress = [f'iifname "{host}" drop' for host in sorted(faults.cut | faults.dead | faults.muted)]
    egress = [f'oifname "{host}" drop' for host in sorted(faults.cut | faults.dead)]
    for host, percent in sorted(faults.loss.items()):
        # nft refuses a comparison that is always true.
        chance = f"numgen random mod 100 < {percent} drop" if percent < 100 else "drop"
        ingress.append(f'iifname "{host}" {chance}')
        egress.append(f'oifname "{host}" {chance}')
    forward = [f'iifname "{source}" oifname "{target}" drop' for source, target in sorted(faults.one_way)]
    isolation = []
    if faults.isolation_address_cut:
        isolation.append(f"ip daddr {ISOLATION_ADDRESS} icmp type echo-request drop")
    chains = {"prerouting": ingress, "postrouting": egress, "forward": forward, "input": isolation}
    lines = [f"add table bridge {_TABLE}", f"delete table bridge {_TABLE}", f"table bridge {_TABLE} {{"]
    for hook, rules in chains.items():
        lines += [f"  chain {hook} {{", f"    type filter hook {hook} priority 0; policy accept;"]
        lines += [f"    {rule}" for rule in rules]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def card_address(address: str) -> str:
    """A locally administered Ethernet address made from a host's IPv4 address."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


class Network:
    """The bridge of one lab and the cables to its hosts."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._name = layout.network_namespace

    def create(self) -> None:
        """Make the bridge's namespace and the bridge with the isolation address. Raises LabError."""
        from pyroute2 import NetNS, netns
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            netns.create(self._name)
            _disable_ipv6(self._name)
            with NetNS(self._name) as ns:
                ns.link("add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0)
                bridge = ns.link_lookup(ifname=BRIDGE)[0]
                ns.addr("add", index=bridge, address=ISOLATION_ADDRESS, prefixlen=PREFIX_LENGTH)
                ns.link("set", index=bridge, state="up")
                ns.link("set", index=ns.link_lookup(ifname="lo")[0], state="up")
        except (OSError, NetlinkError) as error:
            raise LabError(
                f"the lab's network {self._name} could not be made: {error}; `outlast lab down` clears leftovers"
            ) from error

    def connect(self, host: str, address: str) -> None:
        """Make a host's network namespace and plug its cable in. Raises LabError."""
        from pyroute2 import NetNS, netns
        from pyroute2.netlink.exceptions import NetlinkError

        namespace = self._layout.host_namespace(host)
        try:
            netns.create(namespace)
            with NetNS(self._name) as ns:
                ns.link("add", ifname=host, kind="veth", peer={"ifname": "eth0", "net_ns_fd": namespace})
                port = ns.link_lookup(ifname=host)[0]
                ns.link("set", index=port, master=ns.link_lookup(ifname=BRIDGE)[0], state="up")
            with NetNS(namespace) as ns:
                eth0 = ns.link_lookup(ifname="eth0")[0]
                # A network card keeps its address over reboots; by it a host tells its earlier boots from a clone's.
                ns.link("set", index=eth0, address=card_address(address))
                ns.addr("add", index=eth0, address=address, prefixlen=PREFIX_LENGTH)
                ns.link("set", index=eth0, state="up")
                ns.link("set", index=ns.link_lookup(ifname="lo")[0], state="up")
        except (OSError, NetlinkError) as error:
            raise LabError(f"{host} could not be connected to the lab's network: {error}") from error

    def unplug(self, host: str) -> None:
        """Remove a host's cable. Does nothing if there is none."""
        from pyroute2 import NetNS
        from pyroute2.netlink.exceptions import NetlinkError

        with contextlib.suppress(OSError, NetlinkError), NetNS(self._name) as ns:
            for port in ns.link_lookup(ifname=host):
                ns.link("del", index=port)

    def forget(self, host: str) -> None:
        """Remove a host's namespace, after its processes are gone."""
        _remove_namespace(self._layout.host_namespace(host))

    def apply(self, faults: NetworkFaults) -> None:
        """Make exactly these faults hold. Raises LabError."""
        argv = ["nsenter", f"--net={NAMESPACE_DIRECTORY / self._name}", "nft", "-f", "-"]
        done = subprocess.run(argv, input=ruleset(faults), check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(
                f"the network's faults could not be set: {done.stderr.strip()}; is the lab up (`outlast lab status`)?"
            )

    def leftovers(self) -> list[str]:
        """Names of this lab's namespaces that exist now."""
        prefix = f"{self._layout.tag}-"
        own = {self._name}
        # A lab in another directory has a longer tag that begins like the default one, so that the rest of the name
        # decides.
        for name in _namespaces():
            rest = name.removeprefix(prefix)
            if name.startswith(prefix) and rest.startswith("host") and rest[4:].isdigit():
                own.add(name)
        return sorted(own & set(_namespaces()))

    def remove_all(self) -> None:
        """Remove every namespace of this lab, and so the bridge and the cables."""
        for name in self.leftovers():
            _remove_namespace(name)


def _namespaces() -> list[str]:
    return sorted(path.name for path in NAMESPACE_DIRECTORY.iterdir()) if NAMESPACE_DIRECTORY.is_dir() else []


def _remove_namespace(name: str) -> None:
    from pyroute2 import netns

    if not (NAMESPACE_DIRECTORY / name).exists():
        return
    try:
        netns.remove(name)
    except OSError:
        # A creation that was cut short leaves the file without a namespace mounted on it.
        (NAMESPACE_DIRECTORY / name).unlink(missing_ok=True)


def _disable_ipv6(namespace: str) -> None:
    """Keep neighbour discovery from adding packets to what is measured."""
    script = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"
    subprocess.run(
        ["nsenter", f"--net={NAMESPACE_DIRECTORY / namespace}", "sh", "-c", script], check=False, capture_output=True
    )
