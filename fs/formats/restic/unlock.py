"""Find the master key: every key file is tried with the password.

scrypt is slow and takes memory by design, with parameters from an untrusted file: they are bounded
here, and it runs in a thread; the caller's limiter keeps it to one at a time.
"""

from collections.abc import Sequence

import trio
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from backgate.fs.formats.restic.crypto import Key, Opener, Unsound
from backgate.fs.formats.restic.documents import KeyFile, MasterKey, parse
from backgate.gateway.errors import PasswordNeeded
from backgate.gateway.units import MIB

SCRYPT_MEMORY = 256 * MIB  # bytes that one try may take; restic itself calibrates to 60 MB at most
SCRYPT_WORK = (
    16 * SCRYPT_MEMORY
)  # N * r * p * 128 of one key: 8 s; restic calibrates to half a second
SCRYPTS_WORK = 64 * SCRYPT_MEMORY  # of all keys of a repository, because everybody waits: 30 s
SALT_MAX = 1024  # bytes
MATERIAL = 64  # bytes that scrypt makes: Key.of
# What Go's strings.TrimSpace takes off a password that was read from a file or a command.
GO_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


def trimmed(password: bytes) -> bytes:
    """Return the password without the white space around it, as restic reads it."""
    try:
        return password.decode().strip(GO_SPACE).encode()
    except UnicodeDecodeError:
        return password.strip(b"\t\n\v\f\r ")


async def unlock(
    key_files: Sequence[tuple[str, bytes]],
    unreadable: Sequence[str],
    password: bytes,
    limiter: trio.CapacityLimiter,
) -> Key:
    """Return the master key that `password` opens with any of `key_files` (object, content).

    Raises `PasswordNeeded`, which also tells what kept key files from being tried.
    """
    untried = list(unreadable)
    work_left = SCRYPTS_WORK
    for key, data in key_files:
        try:
            file = _key_file(data, work_left)
            work_left -= _work(file)
            return await trio.to_thread.run_sync(_try_key, file, trimmed(password), limiter=limiter)
        except WrongPassword:
            pass
        except Unsound as error:
            untried.append(f"{key}: {error}")
    tried = len(key_files) + len(unreadable) - len(untried)
    reason = f"the configured password opens none of {tried} keys"
    if untried:
        reason += f"; {len(untried)} could not be tried: {'; '.join(untried)}"
    raise PasswordNeeded(reason)


class WrongPassword(Unsound):
    """The key file is sound, and this is not its password (or its MAC was forged)."""


def _work(file: KeyFile) -> int:
    return 128 * file.N * file.r * file.p


def _key_file(data: bytes, work_left: int) -> KeyFile:
    file = parse(data, KeyFile)
    if file.kdf != "scrypt" or len(file.salt) > SALT_MAX:
        raise Unsound(f"a key derivation that we do not know: {file.kdf!a:.40}")
    memory = 128 * file.N * file.r
    if memory > SCRYPT_MEMORY or _work(file) > SCRYPT_WORK or file.N & (file.N - 1):
        raise Unsound(f"scrypt parameters out of bounds: N={file.N} r={file.r} p={file.p}")
    if _work(file) > work_left:
        raise Unsound("the keys before it took too long")
    return file


def _try_key(file: KeyFile, password: bytes) -> Key:
    scrypt = Scrypt(salt=file.salt, length=MATERIAL, n=file.N, r=file.r, p=file.p)
    opener = Opener(Key.of(scrypt.derive(password)))
    try:
        plain = opener.open(file.data)
    except Unsound:
        raise WrongPassword("not the password") from None
    master = parse(plain, MasterKey)
    return Key(master.encrypt, master.mac.k, master.mac.r)
