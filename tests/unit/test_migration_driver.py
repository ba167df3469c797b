"""What is asked of libvirt for a live migration, and when its doubt about shared storage is overruled."""

from __future__ import annotations

import pytest

from outlast.drivers.hypervisor import domains, migration
from outlast.model.ids import DatastoreName
from outlast.model.inventory import DatastoreMember

DATASTORES = (DatastoreMember(DatastoreName("ds1"), "/srv/ds1"),)


def domain(*disks: str) -> str:
    return f"<domain><name>web</name><devices>{''.join(disks)}</devices></domain>"


def disk(path: str, cache: str = "none", more: str = "") -> str:
    return f"<disk type='file'><driver name='qemu' cache='{cache}'/><source file='{path}'/><target dev='vda'/>{more}</disk>"


@pytest.mark.parametrize(
    ("disks", "safe"),
    [
        ((disk("/srv/ds1/a.raw"),), True),
        ((disk("/srv/ds1/a.raw", "directsync"), disk("/srv/ds1/b.iso", "writeback", "<readonly/>")), True),
        ((disk("/srv/ds1/a.raw", "writeback"),), False),
        ((disk("/srv/ds1/a.raw"), disk("/var/lib/b.raw")), False),
        (("<disk type='file'><source file='/srv/ds1/a.raw'/><target dev='vda'/></disk>",), False),
    ],
)
def test_libvirt_is_overruled_only_where_nothing_is_kept_back(disks: tuple[str, ...], safe: bool) -> None:
    assert migration.is_safe(domains.parse(domain(*disks)), DATASTORES) is safe
