"""Fence devices, through the fence agents of ClusterLabs (Debian's package fence-agents), one subprocess a command.

Their convention: options as `name=value` lines on standard input, `action=off` or `action=status`, exit code 0 for success
and for *on*. *Off* is exit code 2, which is also what some say of options that they do not understand: it is believed
only together with the words "Status: OFF". Secrets are read from their files at each command, and never reach a command
line, an environment or a log.

Every command is bounded by its level's timeout, in a process group of its own that is killed then or when it is called off.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from outlast.model.events import Event, FenceEnded, FenceStatusEnded, PowerState
from outlast.model.ids import HostId, RequestId
from outlast.model.inventory import FenceLevel
from outlast.model.time import in_seconds

_SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SAYS_OFF = re.compile(rb"^\s*status:\s*off\s*$", re.IGNORECASE | re.MULTILINE)
_ON, _OFF = 0, 2
_MOST_WORDS = 300


class FenceMethod(msgspec.Struct, frozen=True):
    """One level as configured: the agent's name or path, its options, and the files that hold its secret ones."""

    level: FenceLevel
    parameters: dict[str, str]
    secrets: dict[str, Path]


class _Done(msgspec.Struct):
    code: int | None
    output: bytes
    problem: str = ""


class Fencer:
    """Carries out fence commands; answers come as events. `methods`: each host's levels, in order."""

    def __init__(self, methods: dict[HostId, tuple[FenceMethod, ...]], happen: Callable[[Event], None]) -> None:
        self._methods = methods
        self._happen = happen
        self._tasks: dict[RequestId, asyncio.Task[None]] = {}

    def switch_off(self, request: RequestId, host: HostId, level: int) -> None:
        """Begin to switch a host off; answered by `FenceEnded`."""

        async def work() -> None:
            done = await _run(self._methods[host][level], "off")
            problem = done.problem or ("" if done.code == 0 else _what_it_said(done))
            self._happen(FenceEnded(request, host, not problem, problem))

        self._begin(request, work())

    def ask(self, request: RequestId, host: HostId, level: int) -> None:
        """Begin to ask whether a host is on or off; answered by `FenceStatusEnded`."""

        async def work() -> None:
            state, problem = _state(await _run(self._methods[host][level], "status"))
            self._happen(FenceStatusEnded(request, host, state, problem))

        self._begin(request, work())

    def cancel(self, request: RequestId) -> None:
        """Kill the command, if it still runs. What has reached the device is done."""
        task = self._tasks.get(request)
        if task is not None:
            task.cancel()

    async def test(self, host: HostId) -> list[tuple[str, PowerState, str]]:
        """Ask every level of a host for its state: agent, state, problem. Switches nothing."""
        methods = self._methods.get(host, ())
        answers = await asyncio.gather(*(_run(method, "status") for method in methods))
        return [(method.level.agent, *_state(done)) for method, done in zip(methods, answers, strict=True)]

    def stop(self) -> None:
        """Kill all that runs."""
        for task in self._tasks.values():
            task.cancel()

    def _begin(self, request: RequestId, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[request] = task
        task.add_done_callback(lambda _: self._tasks.pop(request, None))


def missing(agent: str) -> str:
    """Why a fence agent cannot be run, or an empty string."""
    if shutil.which(agent, path=_SEARCHED) is not None:
        return ""
    if "/" in agent:
        return f"there is no program {agent} that can be run: correct the path, or its mode"
    return f"there is no fence agent {agent} on this host: apt-get install fence-agents, or correct its name"


async def _run(method: FenceMethod, action: str) -> _Done:
    program = shutil.which(method.level.agent, path=_SEARCHED)
    if program is None:
        return _Done(None, b"", missing(method.level.agent))
    lines = [f"action={action}", *(f"{name}={value}" for name, value in method.parameters.items())]
    try:
        lines += [f"{name}={file.read_text().strip()}" for name, file in method.secrets.items()]
        process = await asyncio.create_subprocess_exec(
            program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, UnicodeDecodeError) as error:
        return _Done(None, b"", f"it cannot be run: {error}")
    timeout_s = in_seconds(method.level.timeout)
    try:
        output, _ = await asyncio.wait_for(process.communicate("\n".join([*lines, ""]).encode()), timeout_s)
    except TimeoutError:
        await _kill(process)
        return _Done(None, b"", f"it gave no answer within {timeout_s:g} s")
    except asyncio.CancelledError:
        await _kill(process)
        raise
    return _Done(process.returncode, output)


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Also what it started itself: whoever asked does not wait any more, and a late `off` would surprise everybody."""
    with contextlib.suppress(OSError, TimeoutError):
        os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait_for(process.wait(), 1.0)


def _state(done: _Done) -> tuple[PowerState, str]:
    if done.problem:
        return PowerState.UNKNOWN, done.problem
    if done.code == _OFF and _SAYS_OFF.search(done.output):
        return PowerState.OFF, ""
    if done.code == _ON and not _SAYS_OFF.search(done.output):
        return PowerState.ON, ""
    return PowerState.UNKNOWN, _what_it_said(done)


def _what_it_said(done: _Done) -> str:
    words = " ".join(done.output.decode(errors="replace").split())[-_MOST_WORDS:]
    return f"it ended with code {done.code}" + (f": {words}" if words else " and said nothing")
