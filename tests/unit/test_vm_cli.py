"""`outlast vm`: a policy is written into libvirt's definition (its own test driver stands for it), rings are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import msgspec
import pytest
from click.testing import CliRunner

from outlast.drivers.hypervisor.domains import Policy, find_policy, parse
from outlast.drivers.hypervisor.needs import NAMESPACE
from outlast.interfaces import vm_cli
from outlast.interfaces.cli import main
from outlast.model.errors import OutlastError
from outlast.model.policy import Ready, VmPolicy
from outlast.model.status import DomainStatus, VmStatus
from outlast.model.time import SECOND, Duration
from outlast.runtime.control import ControlReply, ControlRequest

URI = "test:///default"


@pytest.fixture
def domain() -> Iterator[Any]:
    """The one VM of libvirt's test driver, called "test", without a policy; kept as long as a connection is open."""
    connection = libvirt.open(URI)
    found = connection.lookupByName("test")
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_AFFECT_LIVE
    found.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, "outlast", NAMESPACE, flags)
    yield found
    connection.close()


def policy_of(domain: Any) -> Policy | None:
    return find_policy(parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))).policy


def outlast(*arguments: str, path: Path | None = None) -> tuple[int, str]:
    argv = ["vm", *arguments]
    if arguments[0] == "set":
        argv += ["--uri", URI]
    done = CliRunner().invoke(main, [*argv, "--socket", str(path or "/nowhere/agent.sock")])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(re.sub("[╭─╮│╰╯]", " ", done.output).split())


def known(**after: tuple[str, ...]) -> DomainStatus:
    vms = tuple(
        VmStatus(
            name=name,
            uuid=f"u-{name}",
            host="host1",
            state="running",
            protected=True,
            home="ds1",
            epoch=0,
            lease_age_s=None,
            memory_mib=1,
            note="",
            policy=VmPolicy(after=each),  # type: ignore[arg-type]
        )
        for name, each in after.items()
    )
    return DomainStatus(
        domain="d",
        seen_from="host1",
        version="0",
        primary="host1",
        term=1,
        isolated=False,
        hosts=(),
        datastores=(),
        vms=vms,
        problems=(),
        dropped_datagrams={},
    )


def agent_says(monkeypatch: pytest.MonkeyPatch, *replies: ControlReply) -> list[ControlRequest]:
    """An agent that gives these replies, the last one for ever; what it was asked."""
    asked: list[ControlRequest] = []

    def ask(_path: Path, request: ControlRequest) -> ControlReply:
        asked.append(request)
        reply = replies[min(len(asked), len(replies)) - 1]
        if not reply.ok:
            raise OutlastError(reply.problem)
        return reply

    monkeypatch.setattr(vm_cli, "ask", ask)
    monkeypatch.setattr(vm_cli.time, "sleep", lambda _: None)
    return asked


def test_a_policy_is_written_into_the_definition(domain: Any) -> None:
    code, text = outlast("set", "test", "--priority", "high", "--ready", "delay:30s", "--max-relocations", "-1")
    assert (code, "priority high" in text) == (0, True)
    how = VmPolicy(priority="high", ready=Ready("delay", Duration(30 * SECOND)), max_relocations=-1)
    assert policy_of(domain) == Policy(how=how)
    assert 'outlast:vm xmlns:outlast="https://outlast.dev/ns/vm/1"' in domain.XMLDesc(0)


def test_what_is_not_named_stays_as_it_is(domain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent_says(monkeypatch, ControlReply(ok=True, status=known(db=(), cache=())))
    outlast("set", "test", "--after", "db", "--after", "cache", "--isolation-response", "power-off")
    outlast("set", "test", "--unprotected")
    outlast("set", "test", "--isolation-response", "default", "--guest-monitoring", "on")
    assert policy_of(domain).how.guest_monitoring == "on"
    outlast("set", "test", "--guest-monitoring", "default")
    found = policy_of(domain)
    assert found == Policy(protected=False, how=VmPolicy(after=("db", "cache")))  # type: ignore[arg-type]
    outlast("set", "test", "--no-after", "--protected")
    assert policy_of(domain) == Policy()


def test_what_else_stands_there_is_not_lost(domain: Any) -> None:
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_AFFECT_LIVE
    kind, element = libvirt.VIR_DOMAIN_METADATA_ELEMENT, '<vm cpus="2" priority="low"/>'
    domain.setMetadata(kind, element, "outlast", NAMESPACE, flags)
    outlast("set", "test", "--priority", "medium")
    definition = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    assert dict(definition.find(f"metadata/{{{NAMESPACE}}}vm").attrib) == {"cpus": "2"}


def test_vms_are_listed_all_or_of_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    status = known(db=(), web=())
    elsewhere = msgspec.structs.replace(status.vms[1], host="host2")
    agent_says(monkeypatch, ControlReply(ok=True, status=msgspec.structs.replace(status, vms=(status.vms[0], elsewhere))))
    code, text = outlast("list")
    assert (code, "db host1 running yes ds1" in text, "web host2 running yes ds1" in text) == (0, True, True)
    code, text = outlast("list", "-o", "json")
    assert (code, [each["name"] for each in json.loads(text)]) == (0, ["db", "web"])
    code, text = outlast("list", "--host", "host7")
    assert (code, "there is no host host7" in text) == (2, True)


def test_a_ring_is_refused_by_name(domain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent_says(monkeypatch, ControlReply(ok=True, status=known(web=("app",), app=("test",))))
    code, text = outlast("set", "test", "--after", "web")
    assert code == 2
    assert "app waits for test, test waits for web, web waits for app" in text
    assert policy_of(domain) is None
    assert outlast("set", "test", "--after", "test")[0] == 2


def test_a_name_that_nobody_knows_is_told(domain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent_says(monkeypatch, ControlReply(ok=True, status=known()))
    code, text = outlast("set", "test", "--after", "bd")
    assert (code, "no VM bd is known here" in text) == (0, True)


@pytest.mark.usefixtures("domain")
def test_what_cannot_be_changed_says_why() -> None:
    code, text = outlast("set", "nobody", "--priority", "low")
    assert (code, "no VM nobody is defined on this host -> a policy is set on the host where" in text) == (1, True)
    assert "nothing is to be changed" in outlast("set", "test")[1]
    assert "--ready: 'soon' is not" in outlast("set", "test", "--ready", "soon")[1]


def test_a_policy_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    agent_says(monkeypatch, ControlReply(ok=True, status=known(web=("db",))))
    assert "web: priority medium, after db, ready by powered-on" in outlast("show", "web")[1]
    assert '"after": [' in outlast("show", "web", "-o", "json")[1]
    assert outlast("show", "wbe")[0] == 1


def test_retry_asks_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    pending, done = ControlReply(ok=True, pending=True), ControlReply(ok=True)
    asked = agent_says(monkeypatch, pending, pending, done)
    assert outlast("retry", "web") == (0, "web is tried once more; see `outlast events -f`")
    assert len({request.token for request in asked}) == 1
    assert [request.do for request in asked] == ["retry"] * 3


def test_a_retry_that_is_refused_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    agent_says(monkeypatch, ControlReply(ok=False, problem="no VM wbe is protected"))
    assert outlast("retry", "wbe") == (1, "Error no VM wbe is protected")
