"""Writing a VM's policy into its definition: libvirt's <metadata>, in the running domain and in the one on disk."""

import contextlib
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import libvirt
import msgspec

from outlast.drivers.hypervisor.domains import Policy, find_policy, parse, policy_element
from outlast.drivers.hypervisor.needs import NAMESPACE
from outlast.model.errors import OutlastError

_PREFIX = "outlast"


@contextlib.contextmanager
def _connected(uri: str) -> Iterator[Any]:
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        connection = libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise OutlastError(f"libvirt ({uri}) cannot be asked: {error}", "systemctl status libvirtd; run as root") from None
    try:
        yield connection
    finally:
        connection.close()


def _definition(domain: Any) -> ElementTree.Element:
    return parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE if domain.isPersistent() else 0))


def _policy_of(definition: ElementTree.Element) -> Policy:
    return find_policy(definition).policy or Policy()


def local_policies(uri: str) -> dict[str, tuple[str, ...]]:
    """Whom each VM that is defined here waits for. Raises OutlastError."""
    found: dict[str, tuple[str, ...]] = {}
    with _connected(uri) as connection:
        for domain in connection.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError, ElementTree.ParseError):
                found[domain.name()] = _policy_of(_definition(domain)).how.after
    return found


def change_policy(uri: str, name: str, changes: dict[str, Any], protected: bool | None) -> Policy:
    """Write what is changed into the definition of a VM of this host, and return all of it. Raises OutlastError."""
    with _connected(uri) as connection:
        try:
            domain = connection.lookupByName(name)
        except libvirt.libvirtError:
            remedy = "a policy is set on the host where the VM is defined: see `outlast status`, `virsh list --all`"
            raise OutlastError(f"no VM {name} is defined on this host", remedy) from None
        try:
            definition = _definition(domain)
            old = _policy_of(definition)
            how = msgspec.structs.replace(old.how, **changes)
            policy = Policy(old.protected if protected is None else protected, how)
            flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0
            flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
            kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
            domain.setMetadata(kind, policy_element(policy, definition), _PREFIX, NAMESPACE, flags)
        except libvirt.libvirtError as error:
            raise OutlastError(f"the definition of {name} cannot be changed: {error}") from None
    return policy
