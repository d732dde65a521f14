"""Tests of `gateway/spooled.py`: what is sent of a file, whatever holds its bytes."""

import os
from pathlib import Path

import pytest
from support.writing import PART, create, memory, opened

from backgate.fs.tree import Changes
from backgate.gateway import spooled
from backgate.gateway.parts import Part


async def test_a_large_part_is_mapped_wherever_its_bytes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooled, "MAPPED_FROM", 2 * PART)
    async with opened(tmp_path, memory()) as repository:
        data = bytearray(os.urandom(12 * PART))
        file = await create(repository, "long")
        await file.write_at(0, bytes(data))
        await file.flush()
        await file.release()
        entry = await repository.tree.child(await repository.tree.root(), b"long")
        file = await repository.tree.open_for_writing(entry, truncate=False)
        await file.write_at(PART, b"changed")
        data[PART : PART + 7] = b"changed"
        await file.change(Changes(size=20 * PART))
        data += bytes(8 * PART)
        held = repository.spool.writing("long")
        assert held is not None

        body = await held.body(Part(1, 0, 16 * PART))

        assert isinstance(body, memoryview)
        assert not isinstance(body.obj, bytearray)
        assert body == data[: 16 * PART]
        assert repository.spool.used == held.local.total
        await file.write_at(2 * PART, b"again")
        data[2 * PART : 2 * PART + 5] = b"again"
        await file.flush()
        assert repository.content("long") == data
        await file.release()
        assert repository.spool.used == 0
