"""What a mount's process does from start to end: open, serve, and answer other commands."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import trio

from backgate.cli.options import Choice
from backgate.fs.control import Arguments, Progress, Verb
from backgate.fs.formats import check_secrets
from backgate.fs.gateway_tree import View, open_gateway_tree
from backgate.fs.mount import MountOptions, serve
from backgate.fs.nurseries import open_nursery
from backgate.fs.outdated import Changed, Path
from backgate.fs.session import Backing, Pending
from backgate.fs.subtree import subtree
from backgate.fs.walk import resolve
from backgate.gateway.credentials import credentials_of
from backgate.gateway.keys import path_of
from backgate.gateway.places import Places
from backgate.gateway.repository import Repository, open_repository
from backgate.gateway.spool import Spool

if TYPE_CHECKING:
    from backgate.cli.mount import Wanted

LISTED = 200  # files of the spool in one line of an answer, which is at most 1 MiB long
TOGETHER = 0.1  # seconds in which changes are gathered before the kernel hears of them
REPORT_EVERY = 1.0  # seconds; who asks hears that we are still at it


async def serve_target(
    choice: Choice, places: Places, mountpoint: str, wanted: "Wanted", ready: Callable[[], None]
) -> None:
    """Mount what `choice` names at `mountpoint` and return when it is unmounted."""
    config = choice.config
    check_secrets(config)
    credentials = credentials_of(config)
    async with (
        open_repository(
            config, places, credentials, writable=not wanted.is_read_only
        ) as repository,
        open_gateway_tree(repository, wanted.view) as shown,
    ):
        tree = shown.tree
        if choice.target.path:
            tree = subtree(*await resolve(tree, os.fsencode(choice.target.path)))
        options = MountOptions(
            target=str(choice.target),
            is_read_only=wanted.is_read_only,
            allow_other=wanted.allow_other,
            writeback=config.writeback,
            runtime=places.runtime,
            backing=_backing(repository, _changed(repository, wanted.view, choice.target.path)),
        )
        await serve(tree, mountpoint, options, ready=ready)


def _changed(repository: Repository, view: View, top: str) -> Changed:
    """Return what waits for changes of objects, and gives them as paths below `top` of `view`."""
    metadata = repository.metadata
    generation = metadata.generation
    shown_at = ["repository"] if view == "all" else []
    above = [name for name in top.split("/") if name]

    async def changed() -> list[Path]:
        nonlocal generation
        await metadata.changed_since(generation)
        await trio.sleep(TOGETHER)
        found = metadata.found_since(generation)
        generation = metadata.generation
        if found is None or view == "backups":
            return []
        paths = [[*shown_at, *path_of(key.removesuffix("/"))] for key in found]
        return [
            [os.fsencode(name) for name in path[len(above) :]]
            for path in paths
            if path[: len(above)] == above
        ]

    return changed


def _backing(repository: Repository, changed: Changed) -> Backing:
    spool = repository.spool

    async def status() -> Mapping[str, Any]:
        return await repository_status(repository)

    if spool is None:
        return Backing(status=status, changed=changed)

    def pending() -> Pending:
        waiting = spool.pending()
        return Pending(len(waiting), sum(one.size for one in waiting))

    def waiting() -> Pending:
        return Pending(**asdict(spool.waited_for()))

    return Backing(
        drain=spool.drained,
        pending=pending,
        waiting=waiting,
        status=status,
        verbs=_spool_verbs(spool),
        changed=changed,
    )


def _spool_verbs(spool: Spool) -> Mapping[str, Verb]:
    """Return what `backgate spool` asks of the mount that has the spool."""

    async def show(_arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        pending = [asdict(one) for one in spool.pending()]
        for first in range(0, len(pending), LISTED):
            await progress({"pending": pending[first : first + LISTED]})
        return {}

    async def report(progress: Progress) -> None:
        while True:
            await progress({"files": len(spool.pending())})
            await trio.sleep(REPORT_EVERY)

    async def retry(arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        async with open_nursery() as nursery:
            nursery.start_soon(report, progress)
            await spool.retry(arguments.get("key"))
            nursery.cancel_scope.cancel()
        return {}

    async def discard(arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
        await spool.discard(arguments["key"])
        return {}

    return {"spool list": show, "spool retry": retry, "spool discard": discard}


async def repository_status(repository: Repository) -> Mapping[str, Any]:
    """Return what a running repository has done and met, as plain numbers and texts."""
    counters, spool = repository.store.counters, repository.spool
    failed = [one for one in spool.pending() if one.state == "failed"] if spool else []
    return {
        "repository": repository.config.name,
        "store": repository.store.name,
        "writes": repository.spool is not None,
        "metadata": asdict(await repository.metadata.status()),
        "requests": dict(counters.requests),
        "bytes_in": counters.bytes_in,
        "bytes_out": counters.bytes_out,
        "retries": counters.retries,
        "faults": counters.errors,
        "last_fault": counters.last_error,
        "last_fault_time": counters.last_error_time,
        "waiting_for_store": counters.waiting,
        "waiting_for_credentials": counters.expired,
        "failed_files": len(failed),
        "failed_reason": failed[0].reason if failed else "",
    }
