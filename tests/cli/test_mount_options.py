"""What stands in an fstab line reaches the mount, and what is for others does not trouble it."""

import os
from pathlib import Path

import pytest

from backgate.cli.mount import Wanted, _with_fstab_options
from backgate.gateway.errors import UsageError

PLAIN = Wanted("all", is_read_only=False, allow_other=False)


def test_options_for_mount_and_systemd_are_passed_over() -> None:
    line = "rw,noauto,nofail,_netdev,user,x-systemd.automount,x-systemd.idle-timeout=60,comment=a"

    assert _with_fstab_options(PLAIN, (line,)) == PLAIN


def test_our_own_options_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKGATE_CONFIG", "/before")

    found = _with_fstab_options(PLAIN, ("ro,allow_other", "view=backups,config=/etc/b.toml"))

    assert found == Wanted("backups", is_read_only=True, allow_other=True)
    assert os.environ["BACKGATE_CONFIG"] == str(Path("/etc/b.toml"))


@pytest.mark.parametrize(
    "option", ["noexec", "suid", "dev", "view=nothing", "config=", "ro=1x,foo"]
)
def test_what_cannot_be_kept_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=r"not understood; known are ro, allow_other"):
        _with_fstab_options(PLAIN, (option,))
