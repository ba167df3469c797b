"""Whether what `outlast plan` foretells is what happens: random domains that lose a host or two.

The scenario is played twice with one seed. The first time it stops just before the loss, and somebody who lives on is asked
what would come of it; the second time that is what is expected: the same VMs run again, the same ones wait. On which host
is not compared: what one host does takes time, and another VM may be placed in between. When each runs again is: not before
those that it waits for are ready, and within the time that was foretold.
"""

import math
import random
from collections.abc import Iterator

import msgspec

from outlast.model.ids import DatastoreName, HostId, HostName, VmName
from outlast.model.planning import Foretold
from outlast.model.policy import PRIORITIES, parse_ready
from outlast.model.time import SECOND, Duration, in_seconds
from outlast.protocol.plan_basis import basis
from outlast.protocol.planning.foretelling import foretell
from outlast.scenario.model import DatastoreSpec, Expectation, HostSpec, Scenario, Step, VmSpec
from outlast.scenario.result import Failure, Result
from outlast.scenario.words import ANY
from outlast.sim import random_placing, stage
from outlast.sim.play import play

LOSS_AT = Duration(10 * SECOND)
WAIT = Duration(6 * SECOND)
"""How long VMs wait for those that they name in `after`, where any do."""
ENDS_AT = Duration(75 * SECOND)
"""Who waits for room is tried again with longer and longer pauses, but looked after every two seconds."""


def generate(seed: int) -> Scenario:
    """A random domain that loses one or two hosts at once."""
    rng = random.Random(f"loss {seed}")
    stores = tuple(
        DatastoreSpec(name=DatastoreName(f"ds{i + 1}"), accept_in_flight_risk=rng.randrange(8) > 0, in_flight_bound=None)
        for i in range(rng.choice([1, 2, 2]))
    )
    names = [HostName(f"host{i + 1}") for i in range(rng.choice([2, 3, 3, 4, 5, 6]))]
    hosts = tuple(HostSpec(name=name, enforcement="none" if rng.randrange(12) == 0 else "") for name in names)
    vms = tuple(
        VmSpec(
            name=VmName(f"vm{i + 1}"),
            datastore=rng.choice(stores).name,
            host=rng.choice(names),
            state="unprotected" if rng.randrange(10) == 0 else "running",
        )
        for i in range(rng.randrange(2, 4 * len(names)))
    )
    hosts, vms, rules = random_placing.draw(rng, hosts, vms)
    lost = sorted(rng.sample(names, 2 if len(names) > 3 and rng.randrange(4) == 0 else 1))
    vms = _in_order(random.Random(f"order {seed}"), _with_priorities(random.Random(f"priorities {seed}"), vms), lost)
    return Scenario(
        title=f"random loss {seed}",
        story=f"Made from seed {seed}: what is foretold of the loss of {' and '.join(lost)} is what happens.",
        seed=rng.getrandbits(31),
        duration=ENDS_AT,
        settings={"dependency_timeout": WAIT} if any(vm.after for vm in vms) else {},
        datastores=stores,
        hosts=hosts,
        vms=vms,
        rules=rules,
        steps=tuple(Step(at=LOSS_AT, do="power-off", keys={"host": name}) for name in lost),
    )


def _with_priorities(rng: random.Random, vms: tuple[VmSpec, ...]) -> tuple[VmSpec, ...]:
    """In half of the domains some VMs are more important than others, and a few are never restarted automatically."""
    if rng.randrange(2):
        return vms
    priorities = [*PRIORITIES, *PRIORITIES[:-1]]
    return tuple(msgspec.structs.replace(vm, priority=rng.choice(priorities)) for vm in vms)


def _in_order(rng: random.Random, vms: tuple[VmSpec, ...], lost: list[HostName]) -> tuple[VmSpec, ...]:
    """In half of the domains some VMs wait for one or two others, most of which are lost with them; they are ready at once,
    later, or as their guests say.
    """
    if rng.randrange(2):
        return vms
    found: list[VmSpec] = []
    for vm in vms:
        others = [each.name for each in found if rng.randrange(4) == 0 or (each.host in lost) is (vm.host in lost)]
        after = tuple(sorted(rng.sample(others, min(len(others), rng.choice([0, 1, 1, 2])))))
        ready = rng.choice(["powered-on", "powered-on", "guest-heartbeat", "delay:3s"])
        found.append(msgspec.structs.replace(vm, after=after, ready=ready))
    return tuple(found)


def foretold(scenario: Scenario) -> Foretold:
    """What a host that lives on says of the loss, just before it."""
    world = stage.make(scenario, scenario.seed)
    world.settle()
    world.scheduler.run_until(world.now + LOSS_AT)
    lost = frozenset(HostId(step.keys["host"]) for step in scenario.steps)
    asked = next(host for name, host in world.hosts.items() if HostId(name) not in lost)
    machine = asked.agent.machine
    if machine is None:
        raise RuntimeError(f"the agent of {asked.id} is away, though nothing was done to it")
    machine.known.now = asked.clock()
    return foretell(basis(machine), lost)


def with_expectation(scenario: Scenario, found: Foretold) -> Scenario:
    """The scenario, in which what was foretold is expected at the end."""
    lost = {step.keys["host"] for step in scenario.steps}
    stay = {vm.name: (vm.host,) for vm in scenario.vms if vm.host not in lost}
    off = [vm for vm in scenario.vms if vm.host in lost and vm.priority == "disabled" and vm.state == "running"]
    left = {vm.name: "stopped" for vm in off}
    claims = {
        "running": stay | {move.vm: (ANY,) for move in found.moves},
        "state": {wait.vm: "waiting" for wait in found.waits} | left,
    }
    expected = Expectation(at=None, claims={name: claim for name, claim in claims.items() if claim})
    return msgspec.structs.replace(scenario, expect=(expected,))


def check(seed: int) -> Result:
    """Whether it happens. A host that tears its record to pieces as it dies leaves less proof than anybody can foretell."""
    scenario = generate(seed)
    found = foretold(scenario)
    result = play(with_expectation(scenario, found))
    if not set(result.awaiting_proof) <= {wait.vm for wait in found.waits}:
        return msgspec.structs.replace(result, failures=(), passed=not result.violations)
    failures = (*result.failures, *_untimely(scenario, found, result))
    return msgspec.structs.replace(result, failures=failures, passed=not failures and not result.violations)


def _untimely(scenario: Scenario, found: Foretold, result: Result) -> Iterator[Failure]:
    """Who ran again before those that it waits for were ready, or at another time than was foretold."""
    runs_at = {each.vm: each.running_at for each in result.recovery}
    delays = {vm.name: in_seconds(parse_ready(vm.ready).delay) for vm in scenario.vms}
    for move in found.moves:
        if move.vm not in runs_at:
            continue
        at, (least, most) = runs_at[move.vm], move.after_s
        took = at - in_seconds(LOSS_AT)
        if not least <= took <= most:
            yield Failure(at, f"{move.vm} runs again {least:g} to {most:g} s after the loss", f"after {took:g} s")
        for each in move.awaits:
            ready_at = runs_at.get(each.vm, math.inf) + delays[each.vm]
            if each.heeded and ready_at < math.inf and at < ready_at:
                yield Failure(at, f"{move.vm} {each.sentence}", f"{each.vm} was ready at {ready_at:g} s")
