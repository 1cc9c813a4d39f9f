"""Plays the platform: runs pods as processes, probes them, names those that are ready, replaces and ends them.

What it knows of a pod is in its Spec. A pod has a loopback address of its own, so that all listen on the ports of the
manifests. As on a real platform the world learns a little late who is ready and who goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .manifests import Probe, Spec
from .names import naming

LATE = 2.0
"""How long it takes until everybody knows that a pod is ready, or goes, in seconds."""

PATIENCE = 60.0

_PROGRAMS = {"jobwire": [sys.executable, "-m", "jobwire_server"], "python": [sys.executable]}


class Pod:
    """One process under the care of its platform."""

    def __init__(self, spec: Spec, address: str, env: dict[str, str], output: Path) -> None:
        self.spec = spec
        self.address = address
        self.ready = asyncio.Event()
        self.terminating = False
        self.restarts = 0
        """How often the platform would have started it anew: a probe for life failed, or it ended by itself."""
        self.probes = 0
        """How many readiness probes it has answered, or not."""
        self.killed = False
        self.lasted = 0.0
        """How long its end took, in seconds."""
        self.exit_code: int | None = None
        self._output = output
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("JOBWIRE_", "DATABASE_URL"))},
            # What a pod takes for all its addresses is one of this machine's.
            **{name: value.replace("0.0.0.0:", f"{address}:") for name, value in spec.env.items() if name != "PATH"},
            **(_service_links() if spec.service_links else {}),
            **env,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._probing: list[asyncio.Task[None]] = []

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "the pod was not started"
        return self._process

    @property
    def serves(self) -> bool:
        """Whether it belongs to the Service: a worker does not."""
        return self.spec.readiness is not None and self.ready.is_set() and not self.terminating

    def text(self) -> str:
        return self._output.read_text(errors="replace")

    async def start(self) -> None:
        program, *arguments = self.spec.command
        with self._output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *_PROGRAMS[program], *arguments, env=self._env, stdout=output, stderr=asyncio.subprocess.STDOUT
            )
        self._probing = [asyncio.create_task(self._care())]

    async def until_ready(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self.ready.wait()
        except TimeoutError:
            pytest.fail(f"the pod did not become ready:\n{self.text()}")

    async def terminate(self) -> None:
        """preStop, SIGTERM, and SIGKILL at the limit."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.terminating = True
        try:
            async with asyncio.timeout_at(began + self.spec.grace):
                if self.spec.pre_stop:
                    hook = await asyncio.create_subprocess_exec(*self.spec.pre_stop)
                    assert await hook.wait() == 0
                with contextlib.suppress(ProcessLookupError):
                    self.process.send_signal(signal.SIGTERM)
                self.exit_code = await self.process.wait()
        except TimeoutError:
            self.killed = True
            await self.kill()
        self.lasted = loop.time() - began
        await self._end_probes()

    async def kill(self) -> None:
        """Ends it at once, however it is."""
        await self._end_probes()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _end_probes(self) -> None:
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)
        self._probing = []

    async def _care(self) -> None:
        """What the kubelet does: the other probes begin when the startup probe has succeeded once."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._notice_an_end())
            if self.spec.startup is not None:
                await self._until_started(self.spec.startup)
            if self.spec.liveness is not None:
                tasks.create_task(self._look_for_life(self.spec.liveness))
            if self.spec.readiness is not None:
                tasks.create_task(self._look_for_readiness(self.spec.readiness))
            else:
                self.ready.set()

    async def _notice_an_end(self) -> None:
        await self.process.wait()
        self.ready.clear()
        if not self.terminating:
            self.restarts += 1

    async def _until_started(self, probe: Probe) -> None:
        await asyncio.sleep(probe.initial_delay)
        for _ in range(probe.failures):
            if await self._ask(probe):
                return
            await asyncio.sleep(probe.period)
        self.restarts += 1

    async def _look_for_life(self, probe: Probe) -> None:
        await asyncio.sleep(probe.initial_delay)
        failed = 0
        while not self.terminating:
            failed = 0 if await self._ask(probe) or self.terminating else failed + 1
            if failed == probe.failures:
                self.restarts += 1
            await asyncio.sleep(probe.period)

    async def _look_for_readiness(self, probe: Probe) -> None:
        await asyncio.sleep(probe.initial_delay)
        failed = 0
        while True:
            good = await self._ask(probe)
            self.probes += 1
            failed = 0 if good else failed + 1
            if good:
                self.ready.set()
            elif failed >= probe.failures:
                self.ready.clear()
            await asyncio.sleep(probe.period)

    async def _ask(self, probe: Probe) -> bool:
        if probe.path is None:
            return await self._ask_health_service(probe)
        return await asyncio.to_thread(self._ask_http, probe)

    def _ask_http(self, probe: Probe) -> bool:
        try:
            url = f"http://{self.address}:{probe.port}{probe.path}"
            with urllib.request.urlopen(url, timeout=probe.timeout) as answer:
                return bool(200 <= answer.status < 400)
        except OSError:
            return False

    async def _ask_health_service(self, probe: Probe) -> bool:
        # A new connection each time, as the kubelet does it.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"{self.address}:{probe.port}", options=options) as channel:
            try:
                check = health_pb2_grpc.HealthStub(channel).Check
                answer = await check(health_pb2.HealthCheckRequest(), timeout=probe.timeout)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Cluster:
    """A namespace with one Service, `jobwire`, and one database."""

    def __init__(self, dsn: str, schema: str, folder: Path) -> None:
        self.pods: list[Pod] = []
        self.gone: list[Pod] = []
        self.known: list[str] = []
        """The addresses that the world takes for those of ready pods."""
        self.ever_known: set[str] = set()
        self.target = ""
        """Under which clients find the Service."""
        self._folder = folder
        self._env = {"JOBWIRE_DATABASE_URL": dsn, "JOBWIRE_SCHEMA": schema}
        self._network = f"127.{random.randint(64, 126)}.{random.randint(1, 254)}"
        self._count = 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Cluster]:
        async with naming(lambda: self.known) as name_server:
            self.target = f"dns://{name_server}/jobwire:50051"
            spreading = asyncio.create_task(self._spread_the_word())
            try:
                yield self
            finally:
                spreading.cancel()
                await asyncio.gather(spreading, return_exceptions=True)
                await asyncio.gather(*(pod.kill() for pod in self.pods))

    async def start(self, spec: Spec, **env: str) -> Pod:
        """Starts a pod, and does not wait for it."""
        self._count += 1
        address = f"{self._network}.{self._count}"
        _have(address)
        # Names are looked up where this cluster's are.
        command = [part.replace("dns:///jobwire:50051", self.target) for part in spec.command]
        pod = Pod(replace(spec, command=command), address, self._env | env, self._folder / f"pod-{self._count}.log")
        self.pods.append(pod)
        await pod.start()
        return pod

    async def deploy(self, spec: Spec) -> None:
        """Starts the pods of a first release; returns when everybody knows them."""
        pods = [await self.start(spec) for _ in range(spec.replicas)]
        for pod in pods:
            await pod.until_ready()
        await self.until_known(*pods)

    async def update(self, spec: Spec) -> None:
        """Replaces all pods, one after the other."""
        going = []
        for old in list(self.pods):
            if spec.surges:
                new = await self.start(spec)
                await new.until_ready()
                await asyncio.sleep(spec.min_ready)
                # A pod that goes is not waited for.
                going.append(asyncio.create_task(self.end(old)))
            else:
                await self.end(old)
                new = await self.start(spec)
                await new.until_ready()
                await self.until_known(new)
        await asyncio.gather(*going)

    async def end(self, pod: Pod) -> None:
        await pod.terminate()
        self.pods.remove(pod)
        self.gone.append(pod)

    async def until_known(self, *pods: Pod) -> None:
        async with asyncio.timeout(PATIENCE):
            while not {pod.address for pod in pods} <= set(self.known):
                await asyncio.sleep(0.1)

    async def _spread_the_word(self) -> None:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        while True:
            fit = [pod.address for pod in self.pods if pod.serves]
            if fit != told:
                told = fit
                loop.call_later(LATE, self._learn, fit)
            await asyncio.sleep(0.05)

    def _learn(self, addresses: list[str]) -> None:
        self.known = addresses
        self.ever_known.update(addresses)


def _have(address: str) -> None:
    for port in (50051, 8080):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    pytest.skip("this system has no loopback addresses but 127.0.0.1")
                pytest.fail(f"{address}:{port} cannot be had; does something listen on all addresses? {error}")


def _service_links() -> dict[str, str]:
    """What Kubernetes puts into the environment for a Service `jobwire` that has a cluster address."""
    return {
        "JOBWIRE_SERVICE_HOST": "10.0.0.1",
        "JOBWIRE_SERVICE_PORT": "50051",
        "JOBWIRE_PORT": "tcp://10.0.0.1:50051",
        "JOBWIRE_PORT_50051_TCP_ADDR": "10.0.0.1",
    }


def at_once(spec: Spec) -> Spec:
    """The same without the pause that caches of names ask for: here nobody keeps an answer."""
    return replace(spec, min_ready=min(spec.min_ready, LATE + 1))
