"""A server process, from start to shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf
import uvloop

from pipelines.serving import log
from pipelines.serving.bodies import BodyReader
from pipelines.serving.config import ServingConfig
from pipelines.serving.handler import Handler
from pipelines.serving.http_protocol import HTTPServer
from pipelines.serving.metrics import Metrics
from pipelines.serving.repository import Repository
from pipelines.serving.rest import RestAPI
from pipelines.serving.startup import Addresses, exports_folder, written
from pipelines.serving.websocket import StreamHandler

#: Threads that parse large requests: each can take several times the memory of its request.
_PARSERS = 2
#: Files open beside the connections, such as those of models.
_OTHER_FILES = 512


def run(names: Sequence[str], config: ServingConfig, addresses: Addresses) -> None:
    """Serve the models in ``exports/`` until the process receives SIGINT or SIGTERM.

    Args:
        names: The models to serve, which have exports; if empty, all.
        config: The server's config.
        addresses: Where the server listens.
    """
    log.configure()
    gc.freeze()  # collecting the garbage of a closed model then takes a shorter pause
    tf.get_logger().setLevel("ERROR")  # its session-based loader warns that it is deprecated
    _share_cores(config.workers)
    _allow_files(config.limits.connections)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            number = runner.run(_serve(names, config, addresses))
    finally:
        log.close()
    signal.raise_signal(number)  # so that the exit status names it


async def _serve(names: Sequence[str], config: ServingConfig, addresses: Addresses) -> int:
    """Serve until a signal arrives; return its number."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_PARSERS, "parse"))
    stopped: asyncio.Future[int] = loop.create_future()
    for handled in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(handled, _stop, stopped, handled)
    root, listener = exports_folder(), addresses.http
    metrics = Metrics()
    repository = Repository(root, names, config, metrics)
    handler = Handler(repository, config, metrics)
    streams = StreamHandler(repository, config, metrics)
    bodies = BodyReader(config.limits)
    api = RestAPI(repository, config, metrics, handler, streams, bodies)
    http = HTTPServer(api.respond, config.limits, bodies)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(repository.close)
        stop_grpc = None
        if addresses.grpc is not None:
            from pipelines.serving import grpc_server  # its dependency is optional

            stop_grpc = await stack.enter_async_context(
                grpc_server.serve(addresses.grpc, repository, config, handler)
            )
        for task in (loop.create_task(repository.watch()), loop.create_task(http.sweep())):
            stack.callback(task.cancel)
        server = await http.listen(listener)
        host, port = listener.getsockname()[:2]
        log.LOGGER.info("listening", address=f"http://{written(host, port)}", exports=str(root))
        number = await stopped
        async with asyncio.TaskGroup() as group:  # both stop accepting, and finish what arrived
            group.create_task(http.stop(listener, server.close))
            group.create_task(streams.stop())
            if stop_grpc is not None:
                group.create_task(_finish(stop_grpc))
    for handled in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(handled)
    return number


def _stop(stopped: asyncio.Future[int], number: int) -> None:
    """Begin the shutdown; at a second signal, end the process at once."""
    if stopped.done():
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    else:
        stopped.set_result(number)


async def _finish(stop: Callable[[], Awaitable[None]]) -> None:
    await stop()


def _share_cores(workers: int) -> None:
    """Give each call of a model its share of the cores.

    The steps of a recurrent network are too small to be divided among threads: with one thread, a
    call on one short text takes half the time, and no more for many texts. A call holds a thread
    while it runs, so that as many are needed for a long call not to hold up others.
    """
    tf.config.threading.set_inter_op_parallelism_threads(workers)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    tf.config.threading.set_intra_op_parallelism_threads(max(1, (cores or 1) // workers))


def _allow_files(connections: int) -> None:
    """Raise the limit of open files for the connections, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
