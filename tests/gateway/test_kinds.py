"""Tests of `gateway/kinds.py`: a cache that was filled under another kind is told of."""

from pathlib import Path

import msgspec
import pytest
from support.writing import CONFIG

from backgate.gateway.kinds import compare_kinds, forget_kind

MIRROR = msgspec.structs.replace(CONFIG, kind="mirror")


def test_who_makes_a_mirror_of_a_repository_is_told_to_rebuild_its_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compare_kinds(tmp_path, CONFIG)
    compare_kinds(tmp_path, CONFIG)
    assert not caplog.text

    for _ in range(2):
        compare_kinds(tmp_path, MIRROR)
        assert "test: it has become a mirror" in caplog.text
        assert "run `backgate cache rebuild memory://test`" in caplog.text
        caplog.clear()

    forget_kind(tmp_path)
    compare_kinds(tmp_path, MIRROR)
    assert not caplog.text


def test_a_configured_one_is_called_by_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compare_kinds(tmp_path, CONFIG)
    compare_kinds(tmp_path, msgspec.structs.replace(MIRROR, name="offsite", origin="/etc/file"))

    assert "run `backgate cache rebuild offsite`" in caplog.text


def test_a_mirror_that_becomes_a_repository_has_learnt_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compare_kinds(tmp_path, MIRROR)
    compare_kinds(tmp_path, CONFIG)

    assert not caplog.text
