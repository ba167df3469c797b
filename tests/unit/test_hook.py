"""libvirt's hook: asks, refuses in words, fails closed for what lies on a datastore, and lets everything else pass."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from outlast.keeper import hook

XML = """<domain><name>web</name><uuid>u-1</uuid>{metadata}<devices>
<disk type='file'><source file='{disk}'/></disk></devices></domain>"""


def xml(disk: str, metadata: str = "") -> str:
    return XML.format(disk=disk, metadata=metadata)


class FakeKeeper:
    """Answers each request on its socket with the same reply; None: never answers."""

    def __init__(self, path: Path, reply: dict[str, Any] | None) -> None:
        self.requests: list[dict[str, Any]] = []
        self._reply = reply
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self.requests.append(json.loads(connection.makefile("rb").readline()))
            if self._reply is not None:
                # Word of other things comes first: only the reply counts.
                lines = [{"type": "happened", "kind": "frozen", "at": 1}, {"type": "reply", "request": 1, **self._reply}]
                connection.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {"datastores": ["/srv/ds1"], "socket": str(tmp_path / "keeper.sock"), "run_dir": str(tmp_path)}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "CONNECT_PATIENCE_S", 0.05)
    monkeypatch.setattr(hook, "ANSWER_TIMEOUT_S", 0.2)


def test_the_keeper_is_asked_and_allows(settings: dict[str, Any]) -> None:
    keeper = FakeKeeper(Path(settings["socket"]), {"allowed": True})
    hook.judge("prepare", "web", xml("/srv/ds1/disks/web.raw"), settings)
    asked = {"type": "gate", "request": 1, "vm": "u-1", "name": "web", "disks": ["/srv/ds1/disks/web.raw"]}
    assert keeper.requests == [{**asked, "writes": asked["disks"], "protected": True, "unfreezable": False}]


@pytest.mark.parametrize(
    "device",
    [
        "<hostdev mode='subsystem' type='pci'><source/></hostdev>",
        "<interface type='vhostuser'><source type='unix' path='/run/ovs.sock'/></interface>",
        "<interface type='hostdev'><source><address type='pci' bus='0x02'/></source></interface>",
        "<filesystem type='mount'><driver type='virtiofs'/></filesystem>",
    ],
)
def test_devices_that_a_freeze_does_not_stop_are_named_to_the_keeper(settings: dict[str, Any], device: str) -> None:
    keeper = FakeKeeper(Path(settings["socket"]), {"allowed": True})
    hook.judge("prepare", "web", xml("/srv/ds1/web.raw").replace("</devices>", device + "</devices>"), settings)
    assert keeper.requests[0]["unfreezable"] is True


def test_the_keepers_sentence_is_passed_on(settings: dict[str, Any]) -> None:
    FakeKeeper(Path(settings["socket"]), {"allowed": False, "sentence": "web is owned by host2"})
    with pytest.raises(hook.RefusedError, match=r"^web is owned by host2$"):
        hook.judge("prepare", "web", xml("/srv/ds1/web.raw"), settings)


def test_without_a_keeper_it_fails_closed(settings: dict[str, Any]) -> None:
    with pytest.raises(hook.RefusedError, match="web may not start: the keeper of this host cannot be asked"):
        hook.judge("prepare", "web", xml("/srv/ds1/web.raw"), settings)


def test_a_keeper_that_never_answers_is_not_waited_for_long(settings: dict[str, Any]) -> None:
    FakeKeeper(Path(settings["socket"]), None)
    began = time.monotonic()
    with pytest.raises(hook.RefusedError, match="cannot be asked"):
        hook.judge("prepare", "web", xml("/srv/ds1/web.raw"), settings)
    assert time.monotonic() - began < 2.0


def test_what_lies_elsewhere_passes_without_being_asked_about(settings: dict[str, Any]) -> None:
    hook.judge("prepare", "web", xml("/var/lib/libvirt/images/web.raw"), settings)
    hook.judge("prepare", "web", xml("/srv/ds10/web.raw"), settings)


def test_what_is_not_followed_yet_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(hook.RefusedError, match="web may not be restored here"):
        hook.judge("restore", "web", xml("/srv/ds1/web.raw"), settings)


def test_a_migration_that_comes_in_is_asked_about(settings: dict[str, Any]) -> None:
    sentence = "web is not expected here"
    keeper = FakeKeeper(Path(settings["socket"]), {"allowed": False, "sentence": sentence})
    with pytest.raises(hook.RefusedError, match=sentence):
        hook.judge("migrate", "web", xml("/srv/ds1/web.raw"), settings)
    assert [asked["type"] for asked in keeper.requests] == ["incoming"]


def test_the_end_of_a_vm_is_never_refused(settings: dict[str, Any]) -> None:
    hook.judge("release", "web", xml("/srv/ds1/web.raw"), settings)


@pytest.mark.parametrize(
    "path",
    ["/srv/ds1/web.raw", "/srv//ds1/./web.raw", "/srv/ds2/../ds1/web.raw", "/srv/ds1/deep/er/../web.raw"],
)
def test_a_disk_is_found_however_its_path_is_written(path: str) -> None:
    assert hook.guarded_disks(ElementTree.fromstring(xml(path)), ["/srv/ds1"]) != []


@pytest.mark.parametrize("path", ["/srv/ds1", "/srv/ds1/../ds2/web.raw", "/srv/ds1x/web.raw", ""])
def test_a_disk_elsewhere_is_not_ours(path: str) -> None:
    assert hook.guarded_disks(ElementTree.fromstring(xml(path)), ["/srv/ds1"]) == []


def disks(path: str, *datastores: str) -> list[str]:
    return hook.guarded_disks(ElementTree.fromstring(xml(path)), list(datastores))


def test_links_are_followed_wherever_they_are(tmp_path: Path) -> None:
    real = tmp_path / "srv" / "ds1"
    real.mkdir(parents=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "deep").symlink_to("../srv")
    (tmp_path / "images" / "web.raw").symlink_to(f"{real}/web.raw")
    (tmp_path / "other").symlink_to(real)
    (tmp_path / "loop").symlink_to("loop")
    for path in (
        "images/deep/ds1/web.raw",
        "images/web.raw",
        "other/web.raw",
        "srv/ds1/sub/../web.raw",
        "other/../ds1/web.raw",
    ):
        assert disks(f"{tmp_path}/{path}", str(real)) == [f"{real}/web.raw"], path
    assert disks(f"{real}/web.raw", f"{tmp_path}/other") == [f"{tmp_path}/other/web.raw"], "the root may be a link as well"
    for path in ("loop/web.raw", "images/none.raw", "srv/ds10/web.raw", "other/../none.raw"):
        assert disks(f"{tmp_path}/{path}", str(real)) == [], path


def test_storage_that_may_hang_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "data").symlink_to("srv")
    touched: list[str] = []
    real = os.readlink

    def readlink(path: str) -> str:
        touched.append(path)
        return real(path)

    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 25 0:32 / {tmp_path}/srv/ds\\0401 rw - nfs4 server:/ds1 rw\n")
    monkeypatch.setattr(hook, "MOUNTS", str(mounts))
    monkeypatch.setattr(os, "readlink", readlink)
    root = f"{tmp_path}/data/ds 1"
    assert disks(f"{tmp_path}/srv/ds 1/a/web.raw", root) == [f"{root}/a/web.raw"]
    assert disks(f"{root}/a/web.raw", root) == [f"{root}/a/web.raw"]
    assert touched
    assert not [path for path in touched if "ds 1" in path]


VOLUME = """<domain><name>web</name><devices>
<disk type='volume'><source pool='images' volume='web.raw'/></disk></devices></domain>"""


def test_a_volume_is_found_through_its_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = ElementTree.fromstring(VOLUME)
    monkeypatch.setattr(hook, "POOLS", (str(tmp_path / "none"), str(tmp_path)))
    with pytest.raises(hook.RefusedError, match=r"^web may not start: its volume web.raw in the storage pool images"):
        hook.judge("prepare", "web", VOLUME, {"datastores": ["/srv/ds1"]})
    pool = tmp_path / "images.xml"
    pool.write_text("<pool type='dir'><name>images</name><target><path>/srv/ds1/images</path></target></pool>")
    assert hook.guarded_disks(domain, ["/srv/ds1"]) == ["/srv/ds1/images/web.raw"]
    assert hook.guarded_disks(domain, ["/srv/ds2"]) == []
    pool.write_text("<pool type='rbd'><name>images</name></pool>")
    assert hook.guarded_disks(domain, ["/srv/ds1"]) == []
    pool.write_text("<pool")
    with pytest.raises(hook.RefusedError, match="cannot be found"):
        hook.guarded_disks(domain, ["/srv/ds1"])


def test_an_unprotected_vm_says_so(settings: dict[str, Any]) -> None:
    keeper = FakeKeeper(Path(settings["socket"]), {"allowed": True})
    metadata = f"<metadata><o:vm xmlns:o='{hook.NAMESPACE}' protected='no'/></metadata>"
    hook.judge("prepare", "web", xml("/srv/ds1/web.raw", metadata), settings)
    assert keeper.requests[0]["protected"] is False


def test_a_definition_that_cannot_be_read_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(hook.RefusedError, match="cannot be read"):
        hook.judge("prepare", "web", "<domain>", settings)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"datastores": 7}'])
def test_without_its_settings_nothing_can_be_judged(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "hook.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(hook.RefusedError, match="run `outlast hook install`"):
        hook.load_settings(str(path))


def test_it_is_quick(tmp_path: Path) -> None:
    """libvirt waits for it: 100 ms are asked for, and here several times that are allowed on a busy machine."""
    argv = [sys.executable, "-I", "-S", hook.__file__, "web", "started", "begin", "-"]
    took = []
    for _ in range(5):
        began = time.monotonic()
        assert subprocess.run(argv, check=False, stdin=subprocess.DEVNULL).returncode == 0
        took.append(time.monotonic() - began)
    assert min(took) < 0.4
