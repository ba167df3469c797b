"""The files that make a lab host the host that it is: its /etc, and what libvirt and Outlast read there.

They are written once, when the lab is made, and survive the host's power cycles. Of the machine's own /etc a host gets a
copy of what programs need to run, never its libvirt or Outlast settings.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outlast.lab.layout import ISOLATION_ADDRESS, Layout, datastore_path
from outlast.lab.state import LabState

DOMAIN = "lab"
CONFIG = Path("/etc/outlast/outlast.toml")
KEY = Path("/etc/outlast/cluster.key")
FENCE_AGENT = Path("/etc/outlast/fence_lab")
# Of the machine's /etc, as far as they exist.
_COPIED = (
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "default",
    "fuse.conf",
    "gai.conf",
    "gnutls",
    "group",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "libnl-3",
    "localtime",
    "login.defs",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "profile",
    "profile.d",
    "protocols",
    "python3",
    "python3.11",
    "qemu",
    "resolv.conf",
    "sasl2",
    "security",
    "services",
    "shells",
    "ssl",
    "terminfo",
)

_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
remember_owner = 0
dynamic_ownership = 0
"""

# Debian's libvirtd looks these up even if QEMU is to run as root, and its package does not make them everywhere (in an
# image's chroot).
_ACCOUNTS = {
    "passwd": ["libvirt-qemu:x:64055:64055:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin"],
    "group": ["libvirt-qemu:x:64055:", "libvirt:x:64056:", "kvm:x:64057:"],
}

# TCP, without authentication, is for migration inside the lab's own network namespaces, which nothing else reaches.
_LIBVIRTD_CONF = """\
host_uuid = "{id}"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0770"
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
log_outputs = "3:stderr"
"""


def write_host(layout: Layout, state: LabState, host: str, key: str) -> None:
    """Write a host's /etc and make its persistent directories."""
    base = layout.host(host)
    etc = base / "etc"
    for name in (
        "root",
        "lib/libvirt",
        "lib/outlast",
        "log/libvirt",
        "log/outlast",
        "guest-logs",
        "mounts",
        "etc/libvirt",
        "etc/outlast",
    ):
        (base / name).mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        source = Path("/etc") / name
        if source.is_symlink() or source.is_file():
            shutil.copy2(source, etc / name, follow_symlinks=False)
        elif source.is_dir():
            shutil.copytree(source, etc / name, symlinks=True, dirs_exist_ok=True)
    for file, entries in _ACCOUNTS.items():
        _add_accounts(etc / file, entries)
    own = state.hosts[host]
    lines = [f"{each.address} {name}" for name, each in state.hosts.items()]
    (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
    (etc / "hostname").write_text(f"{host}\n")
    (etc / "machine-id").write_text(own.id.replace("-", "") + "\n")
    (etc / "libvirt" / "qemu.conf").write_text(_QEMU_CONF)
    (etc / "libvirt" / "libvirtd.conf").write_text(_LIBVIRTD_CONF.format(id=own.id, address=own.address))
    (etc / "outlast" / CONFIG.name).write_text(outlast_toml(state, host))
    agent = etc / "outlast" / FENCE_AGENT.name
    agent.write_text(f"#!{sys.executable}\nfrom outlast.lab.fence_agent import main\n\nraise SystemExit(main())\n")
    agent.chmod(0o755)
    secret = etc / "outlast" / KEY.name
    secret.touch(mode=0o600)
    secret.chmod(0o600)
    secret.write_text(f"{key}\n")


def _add_accounts(file: Path, entries: list[str]) -> None:
    """Add those accounts to a host's copy of passwd or group that it lacks."""
    lines = file.read_text().splitlines()
    names = {line.partition(":")[0] for line in lines}
    lines += [entry for entry in entries if entry.partition(":")[0] not in names]
    file.write_text("\n".join([*lines, ""]))


def outlast_toml(state: LabState, host: str) -> str:
    """A host's Outlast configuration."""
    lines = ["[domain]", *_table({"name": DOMAIN, "key_file": str(KEY), "isolation_addresses": [ISOLATION_ADDRESS]})]
    lines += ["", "[host]", *_table({"name": host})]
    for name, each in state.hosts.items():
        lines += ["", "[[hosts]]", *_table({"name": name, "id": each.id, "address": each.address})]
        if name in state.outlets:
            fencing = {"agent": str(FENCE_AGENT), "timeout": "5s", "parameters": {"plug": name}}
            lines += ["", "[[hosts.fencing]]", *_table(fencing)]
    for name in state.datastores:
        options = state.datastore_options.get(name, {"in_flight_bound": "1s"})
        lines += ["", "[[datastores]]", *_table({"name": name, "path": str(datastore_path(name)), **options})]
    lines += ["", "[hypervisor]", *_table({"migration_uri": "qemu+tcp://{address}/system"})]
    lines += ["", "[settings]", *_table(state.settings)]
    return "\n".join([*lines, ""])


def _table(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in values.items()]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_table(value)) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
