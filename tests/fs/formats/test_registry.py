"""The registry of formats: ours, and those of other packages."""

from importlib.metadata import EntryPoint

import pytest

from backgate.fs import formats
from backgate.fs.format import BackupFormat
from backgate.gateway.errors import ConfigError


def test_every_built_in_format_loads_under_its_name() -> None:
    for name, plugin in formats.installed_formats().items():
        found = formats.format_class(plugin)
        assert issubclass(found, BackupFormat)
        assert found.name == name


@pytest.mark.parametrize(
    "value",
    ["no.such.module:X", "backgate.fs.format:NoSuchName", "backgate.fs.tree:Entry"],
)
def test_what_is_no_format_is_refused_with_its_name(value: str) -> None:
    with pytest.raises(ConfigError, match="format 'mine' of backgate"):
        formats.format_class(EntryPoint("mine", value, formats.GROUP))


def test_a_format_under_another_name_is_refused() -> None:
    value = "backgate.fs.formats.tar.format:TarFormat"

    with pytest.raises(ConfigError, match="calls itself 'tar'"):
        formats.format_class(EntryPoint("mine", value, formats.GROUP))


def test_two_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = EntryPoint("tar", "elsewhere:Tar", formats.GROUP)
    monkeypatch.setattr("backgate.gateway.plugins.entry_points", lambda group: [other])

    with pytest.raises(ConfigError, match="two plug-ins are called 'tar'"):
        formats.installed_formats()
