"""Tar archives in a repository, each shown as the tree that extracting it would leave."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing

import trio

from backgate.fs.format import Backup, BackupFormat, Surroundings
from backgate.fs.formats.compression.codec import codec_named
from backgate.fs.formats.compression.decoders import Decoders
from backgate.fs.formats.compression.source import Packed, Pieces, Unpacked
from backgate.fs.formats.indexes import Indexes, identity
from backgate.fs.formats.looks import look_at
from backgate.fs.formats.tar import schema
from backgate.fs.formats.tar.build import build
from backgate.fs.formats.tar.index import Index
from backgate.fs.formats.tar.paths import is_archive, paths
from backgate.fs.formats.tar.tree import TarTree
from backgate.fs.formats.tar.verdicts import Verdict, Verdicts, judge
from backgate.fs.tree import Tree
from backgate.gateway.errors import Damaged, Replaced
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Source
from backgate.gateway.units import MIB

LEFT_OUT_NAMED = 5  # members that cannot be shown, of which a listing says why
PIECES_SHARE = 4  # a fourth of the memory holds plain pieces, the rest decompressors
PIECES_MIN = 4 * MIB  # bytes; below it a sequential read would decompress twice


class TarFormat(BackupFormat):
    """`tar/<key without suffix>/<the files>`; see `backgate.fs.formats.tar`."""

    name = "tar"

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        objects, directory = surroundings.objects, surroundings.cache_directory
        pieces = max(PIECES_MIN, surroundings.memory_limit // PIECES_SHARE)
        folder = directory / f"index-{schema.VERSION}"
        self._indexes = Indexes(objects, folder, Index, build)
        self._verdicts = Verdicts(directory)
        self._pieces = Pieces(pieces, getsizeof=len)
        self._decoders = Decoders(surroundings.memory_limit - pieces)
        self._asked: tuple[Sequence[ObjectInfo], int] | None = None
        self._answer: list[Backup] = []  # to that

    def is_landmark(self, key: str) -> bool:
        return is_archive(key)

    async def backups(self, landmarks: Sequence[ObjectInfo]) -> list[Backup]:
        if (landmarks, self._verdicts.generation) == self._asked:  # something else has changed
            await trio.lowlevel.checkpoint()
            return self._answer
        verdicts, is_final = await self._judge(landmarks)
        generation = self._verdicts.generation
        workers = self.surroundings.workers
        answer = await trio.to_thread.run_sync(_backups, landmarks, verdicts, limiter=workers)
        if is_final:
            self._asked, self._answer = (landmarks, generation), answer
        return answer

    @asynccontextmanager
    async def open(self, backup: Backup) -> AsyncIterator[Tree]:
        info = await self.surroundings.objects.info(backup.key)
        if identity(info) != backup.version:
            raise Replaced(f"{info.key}: another archive lies there by now", key=info.key)
        verdict = self._verdicts.known(info)
        if verdict is not None and verdict.reason:  # reading all of it again would end as before
            raise Damaged(info.key, None, f"as was found before: {verdict.reason}")
        try:
            index = await self._indexes.open(info)
        except Damaged as error:
            kind = backup.notes.get("compression", "tar")
            self._verdicts.remember({identity(info): Verdict(kind, str(error))})
            raise
        with closing(index):
            self._note_left_out(info, index)
            yield TarTree(index, self._plain(info, index))

    def _note_left_out(self, info: ObjectInfo, index: Index) -> None:
        """Remember for `backups` what cannot be shown, when that is learnt for the first time."""
        left_out = index.left_out(LEFT_OUT_NAMED)
        known = self._verdicts.known(info)
        if left_out and not (known and known.left_out):
            kind = str(index.fact("codec") or "tar")
            text = f"{index.fact('left_out')} members: " + "; ".join(left_out)
            self._verdicts.remember({identity(info): Verdict(kind, left_out=text)})

    def _plain(self, info: ObjectInfo, index: Index) -> Source:
        source = self.surroundings.objects.source(info)
        codec = index.fact("codec")
        if codec is None:
            return source
        packed = Packed(identity(info), info.key, source, codec_named(str(codec)))
        return Unpacked(packed, index.connection, self._decoders, self._pieces)

    async def _judge(self, landmarks: Sequence[ObjectInfo]) -> tuple[list[Verdict], bool]:
        """Return a verdict on each, and True when it would be the same another time.

        What is not known yet is looked at, and then remembered.

        Raises `Unreachable`: an archive that could not be asked for is not missing.
        """
        unknown = (info for info in landmarks if self._verdicts.known(info) is None)
        found, failed, unreachable = await look_at(unknown, self._look)
        if found:
            self._verdicts.remember(found)
        if unreachable is not None:
            raise unreachable
        verdicts = [
            self._verdicts.known(info) or Verdict(reason=failed[identity(info)])
            for info in landmarks
        ]
        return verdicts, not failed

    async def _look(self, info: ObjectInfo) -> Verdict:
        return await judge(info, self.surroundings.objects.source(info))


def _backups(landmarks: Sequence[ObjectInfo], verdicts: Sequence[Verdict]) -> list[Backup]:
    places = paths(info.key for info in landmarks)
    return [
        Backup(
            path=places[info.key],
            key=info.key,
            time_ns=info.mtime_ns,
            size=info.size,
            version=identity(info),
            is_complete=not verdict.reason,
            reason=verdict.reason,
            notes={"compression": verdict.kind} | verdict.notes,
        )
        for info, verdict in zip(landmarks, verdicts, strict=True)
    ]
