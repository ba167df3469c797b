"""How a run of a scenario ended, in either world: what `--json` prints (docs/scenarios.md, Result).

Times and lengths are seconds, rounded to the millisecond; `at` counts from the start of the scenario.
"""

import msgspec


class Failure(msgspec.Struct, frozen=True):
    """An expectation that did not hold: which, and what was found."""

    at: float
    expectation: str
    found: str


class Violation(msgspec.Struct, frozen=True):
    """An invariant that was broken."""

    at: float
    invariant: str
    detail: str


class Hazard(msgspec.Struct, frozen=True):
    """What design.md section 2 names as not promised, and it happened."""

    at: float
    kind: str
    seconds: float
    detail: str


class VmEnd(msgspec.Struct, frozen=True):
    """A VM at the end."""

    state: str
    host: str
    epoch: int | None
    restarts: int


class HostEnd(msgspec.Struct, frozen=True):
    """A host at the end."""

    verdict: str
    power: str


class End(msgspec.Struct, frozen=True):
    """Everything at the end, by name."""

    vms: dict[str, VmEnd]
    hosts: dict[str, HostEnd]
    primary: str


class Recovered(msgspec.Struct, frozen=True):
    """One way back: from the step that stopped a VM or cut it off until it ran again."""

    vm: str
    cause_at: float
    running_at: float
    seconds: float


class Line(msgspec.Struct, frozen=True):
    """One line of the story."""

    at: float
    kind: str
    host: str
    vm: str
    text: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `seconds`: how long it was in its world's time; `wall_seconds` and `cpu_seconds`: in ours.

    `awaiting_proof`: VMs that wait for a proof that only a person can give. `trace`: one number for everything that
    happened, in order; in the simulated world it is the same for the same seed.
    """

    scenario: str
    world: str
    seed: int
    passed: bool
    failures: tuple[Failure, ...]
    violations: tuple[Violation, ...]
    hazards: tuple[Hazard, ...]
    end: End
    recovery: tuple[Recovered, ...]
    timeline: tuple[Line, ...]
    events: int
    wall_seconds: float
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    awaiting_proof: tuple[str, ...] = ()
    trace: str = ""
