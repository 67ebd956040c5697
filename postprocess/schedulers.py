"""Where the tasks of this stage run: in this process, on its threads, on Ray, or on a Dask cluster at an address.

A cluster's workers have to see the run's folder under the same path.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAMES = ("auto", "sync", "threads", "ray")
ANSWER_SECONDS = 10
"""How long a Dask scheduler has to answer."""
WORKER_SECONDS = 30
"""How long one that has lost its workers may take to get another."""


@dataclass(frozen=True)
class Scheduler:
    """Something that runs Dask graphs; `alive` raises where it has gone away."""

    name: str
    run: Callable[[list[Any]], list[Any]]
    slots: int
    alive: Callable[[], None]

    def compute(self, tasks: Sequence[Callable[[], Any]], lost: Callable[[int, Exception], Any]) -> list[Any]:
        """Return what the tasks return, in their order.

        Tasks catch what goes wrong in them; where a worker dies all the same, time after time, each task that has not
        been done is tried alone, and what `lost` makes of its place and the error stands for the one that kills it.

        Raises
        ------
        BadInput
            The scheduler has gone away.
        """
        try:
            return self.run(_graph(tasks))
        except Exception:
            self.alive()
        done = []
        for place, task in enumerate(tasks):
            try:
                done += self.run(_graph([task]))
            except Exception as fault:
                self.alive()
                done.append(lost(place, fault))
        return done


def check(name: str) -> None:
    """Refuse a name that stands for no scheduler.

    Raises
    ------
    BadInput
        An unknown name, or an address without host or port.
    """
    if name not in NAMES and not re.fullmatch(r"(tcp|tls)://\S+:\d+", name):
        raise BadInput(f"scheduler {name!r}: unknown; choose {', '.join(NAMES)} or tcp://HOST:PORT")


@contextmanager
def scheduler(name: str) -> Iterator[Scheduler]:
    """Start or join what a name stands for, and leave it again.

    Parameters
    ----------
    name
        ``sync``, ``threads``, ``ray``, the ``tcp://host:port`` of a Dask scheduler, or ``auto``: threads where there is
        more than one core.

    Raises
    ------
    BadInput
        An unknown name, or nobody answers at the address.
    """
    check(name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if name == "auto":
        name = "threads" if cores > 1 else "sync"
    if name in ("sync", "threads"):
        yield Scheduler(name, partial(_computed, name), cores if name == "threads" else 1, lambda: None)
    elif name == "ray":
        yield from _on_ray()
    else:
        yield from _at(name)


def _graph(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return new Dask tasks; under an old name Dask would not try again what died beside the one that kills workers."""
    from dask.delayed import delayed

    return [delayed(task, pure=False)() for task in tasks]


def _computed(where: Any, graph: list[Any]) -> list[Any]:
    from dask.base import compute

    return list(compute(*graph, scheduler=where))  # type: ignore[no-untyped-call]


def _on_ray() -> Iterator[Scheduler]:
    import ray
    from ray.util.dask import ray_dask_get

    from cluster.start import start_ray, stop_ray

    ours = not ray.is_initialized()
    if ours:
        try:
            start_ray()
        except ConnectionError as fault:
            raise BadInput(f"scheduler ray: {fault}") from fault

    def alive() -> None:
        if not ray.is_initialized():
            raise BadInput("scheduler ray: it has ended; the same command does the rest")

    try:
        yield Scheduler(
            "ray", partial(_computed, ray_dask_get), max(1, int(ray.cluster_resources().get("CPU", 1))), alive
        )
    finally:
        if ours:
            stop_ray()


def _at(address: str) -> Iterator[Scheduler]:
    import dask
    from distributed import Client, wait

    with dask.config.set({"distributed.comm.timeouts.connect": ANSWER_SECONDS}):
        try:
            client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as fault:
            raise BadInput(
                f"scheduler {address}: no answer ({type(fault).__name__}); start one with `dask scheduler`, and workers"
            ) from fault

        def alive() -> None:
            try:
                client.wait_for_workers(1, timeout=WORKER_SECONDS)
            except TimeoutError as fault:
                raise BadInput(f"scheduler {address}: it has no worker; the same command does the rest") from fault
            except Exception as fault:
                raise BadInput(f"scheduler {address}: it has ended; the same command does the rest") from fault

        def computed(graph: list[Any]) -> list[Any]:
            futures = client.compute(graph)  # type: ignore[no-untyped-call]
            try:
                while True:
                    try:
                        with client.as_current():  # whom `wait` asks, for this client is nobody's default
                            wait(futures, timeout=WORKER_SECONDS)  # type: ignore[no-untyped-call]
                    except TimeoutError:
                        alive()  # a cluster that has lost its workers for good would be waited for without an end
                    else:
                        return list(client.gather(futures))  # type: ignore[no-untyped-call]
            finally:
                for future in futures:  # else what an error still holds is computed again when its worker dies
                    future.release()

        try:
            alive()
            yield Scheduler(address, computed, sum(client.ncores().values()), alive)  # type: ignore[no-untyped-call]
        finally:
            client.close(timeout=ANSWER_SECONDS)  # type: ignore[no-untyped-call]
