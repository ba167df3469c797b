"""`outlast metrics`: what Prometheus reads of a host, and that its own parser understands it."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from prometheus_client import generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from test_sim_failover import domain, secondary
from test_vm_cli import known

from outlast.interfaces import metrics
from outlast.interfaces.cli import main
from outlast.model.errors import OutlastError
from outlast.model.latency import Latencies
from outlast.model.planning import Outlook
from outlast.model.status import DomainStatus
from outlast.model.time import seconds
from outlast.protocol.reporting import Reporter
from outlast.runtime.control import ControlReply, ControlRequest

Read = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(monkeypatch: pytest.MonkeyPatch, status: DomainStatus | None) -> Read:
    """Every sample, by its name and its labels."""

    def ask(_path: Path, _request: ControlRequest) -> ControlReply:
        if status is None:
            raise OutlastError("no agent answers")
        return ControlReply(ok=True, status=status)

    monkeypatch.setattr(metrics, "ask", ask)
    text = generate_latest(metrics.registry_of(Path("/nowhere"))).decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_of_an_agent_that_does_not_answer_only_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, None) == {("outlast_up", ()): 0.0}


def test_a_domain_of_which_a_host_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    world = domain()
    host, vm = secondary(world)
    world.power_off(host)
    world.run(60)
    name = world.primaries()[0]
    primary = world.hosts[name]
    assert primary.agent.machine is not None
    found = read(monkeypatch, Reporter(primary.agent.machine, primary.clock()).snapshot("1", {"replayed": 3}))
    assert found["outlast_up", ()] == 1
    assert found["outlast_host_verdict", (("host", host), ("verdict", "dead"))] == 1
    assert found["outlast_host_verdict", (("host", host), ("verdict", "connected"))] == 0
    assert found["outlast_host_primary", (("host", name),)] == 1
    assert found["outlast_vms", (("state", "running"),)] == len(world.vm_specs)
    assert found["outlast_vms", (("state", "failed"),)] == 0
    assert found["outlast_vm_running", (("uuid", vm), ("vm", vm))] == 1
    assert found["outlast_datastore_lease_held", (("datastore", "ds1"),)] == 1
    assert found["outlast_dropped_datagrams_total", (("reason", "replayed"),)] == 3
    assert found["outlast_survivable_host_failures", ()] >= 0
    count = found["outlast_heartbeat_write_seconds_count", (("datastore", "ds1"),)]
    assert count > 30
    assert found["outlast_heartbeat_write_seconds_bucket", (("datastore", "ds1"), ("le", "+Inf"))] == count


def test_what_is_not_known_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = read(monkeypatch, known(db=()))
    assert not [name for name, _ in unknown if "survivable" in name or "short" in name]
    outlook = Outlook(survives=1, done=True, why="", proven=True, short="too little")
    found = read(monkeypatch, msgspec.structs.replace(known(), outlook=outlook))
    assert (found["outlast_survivable_host_failures", ()], found["outlast_capacity_short", ()]) == (1, 1)


def test_the_classes_of_a_histogram_add_up() -> None:
    counted = Latencies().and_one(seconds(0.004)).and_one(seconds(0.004)).and_one(seconds(0.3)).and_one(seconds(9))
    buckets = dict(metrics._buckets(counted))
    assert (buckets["0.005"], buckets["0.25"], buckets["0.5"], buckets["5.0"], buckets["+Inf"]) == (2, 2, 3, 3, 4)


def test_they_are_printed_without_an_agent_too(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["metrics", "--socket", str(tmp_path / "agent.sock")])
    assert (done.exit_code, "outlast_up 0.0" in done.output) == (0, True)


def test_they_are_served(tmp_path: Path) -> None:
    server, thread = start_http_server(0, "127.0.0.1", metrics.registry_of(tmp_path / "agent.sock"))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            assert b"outlast_up 0.0" in answer.read()
    finally:
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("listen", ["9478", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:99999", ":1"])
def test_where_to_listen_is_to_be_said_in_full(listen: str) -> None:
    done = CliRunner().invoke(main, ["metrics", "--listen", listen])
    assert (done.exit_code, "is not an address with a port" in " ".join(done.output.split())) == (2, True)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = CliRunner().invoke(main, ["metrics", "--listen", listen, "--socket", str(tmp_path / "agent.sock")])
    assert (done.exit_code, f"nothing can listen at {listen}" in done.output) == (1, True)
