"""What each thing that was seen means: the best tier that it leaves, and what Backgate does about
it.

A store's tier is the worst that any finding leaves. docs/validation.md shows these rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backgate.gateway.validation.report import Finding, Seen, Tier

FAILED = "failed"  # the outcome of a measure that ended with an error


@dataclass(frozen=True, slots=True)
class Grade:
    """What an outcome means."""

    tier: Tier | None  # the best that is left; None: Backgate cannot use the store
    remedy: str = ""


_INDEX = "the metadata cache answers listings, so that no tool waits for one"
_NO_SUMS = "what the store answers is compared, where it is known to tell; use https"
_LOCKS = "a lock is checked in the index: let one gateway write to the repository"

RULES: dict[str, dict[str, Grade]] = {
    "put and get": {
        "works": Grade(1),
        "damaged": Grade(None),
        FAILED: Grade(None),
    },
    "checksums": {
        "checked": Grade(1),
        "not needed": Grade(1),
        "others checked": Grade(2, "with the profile below, bodies go with one that is checked"),
        "ignored": Grade(2, _NO_SUMS),
        FAILED: Grade(2, _NO_SUMS),
    },
    "latency": {"measured": Grade(1), FAILED: Grade(None)},
    "ranges": {
        "work": Grade(1),
        "wrong": Grade(None),
        FAILED: Grade(None),
    },
    "versions": {
        "told apart": Grade(1),
        "not told apart": Grade(3, "none: a file that is replaced while it is read may be mixed"),
        FAILED: Grade(3, "none: a file that is replaced while it is read may be mixed"),
    },
    "metadata": {
        "kept": Grade(1),
        "little": Grade(2, "modes and times that do not fit are kept in the metadata cache alone"),
        "changed": Grade(2, "modes and times may have to come from the metadata cache alone"),
        FAILED: Grade(2, "modes and times are kept in the metadata cache alone"),
    },
    "copies": {
        "work": Grade(1),
        "wrong": Grade(2, "a rename reads the object and stores it anew"),
        FAILED: Grade(2, "a rename reads the object and stores it anew"),
    },
    "batch delete": {
        "works": Grade(1),
        "one by one": Grade(2, "objects are deleted one by one, which takes longer"),
        "incomplete": Grade(3, "each key that is left is reported and deleted again"),
        FAILED: Grade(None),
    },
    "multipart": {
        "works": Grade(1),
        "damaged": Grade(None),
        FAILED: Grade(None),
    },
    "copied parts": {
        "work": Grade(1),
        "missing": Grade(2, "bytes of an object that is changed in part are read and sent again"),
        FAILED: Grade(2, "bytes of an object that is changed in part are read and sent again"),
    },
    "pending uploads": {
        "told": Grade(1),
        "not told": Grade(2, "uploads are aborted by the gateway's own journal"),
        "kept": Grade(2, "none: let the bucket's lifecycle rule end unfinished uploads"),
        FAILED: Grade(2, "uploads are aborted by the gateway's own journal"),
    },
    "conditional put": {
        "enforced": Grade(1),
        "ignored": Grade(2, _LOCKS),
        "rejected": Grade(2, _LOCKS),
        FAILED: Grade(2, _LOCKS),
    },
    "conditional commit": {
        "enforced": Grade(1),
        "ignored": Grade(2, _LOCKS),
        "rejected": Grade(2, _LOCKS),
        FAILED: Grade(2, _LOCKS),
    },
    "conditional delete": {  # where it is not, what is to be deleted is looked at before
        "enforced": Grade(1),
        "ignored": Grade(1),
        "rejected": Grade(1),
        FAILED: Grade(1),
    },
    "special keys": {
        "kept": Grade(1),
        "refused": Grade(2, "such names are refused before they are sent"),
        "changed": Grade(2, "such names are refused, so that none becomes another"),
        FAILED: Grade(2, "such names are refused before they are sent"),
    },
    "markers": {
        "kept": Grade(1),
        "lost": Grade(2, "a directory's mode and times are kept in the metadata cache alone"),
        FAILED: Grade(2, "a directory's mode and times are kept in the metadata cache alone"),
    },
    "file beside directory": {
        "kept": Grade(1),
        "lost": Grade(2, "none: no backup tool needs both"),
        FAILED: Grade(2, "none: no backup tool needs both"),
    },
    "empty prefixes": {
        "are forgotten": Grade(1),
        "stay": Grade(2, "a directory is shown by the keys below it, not by the store's prefixes"),
        FAILED: Grade(2, "a directory is shown by the keys below it, not by the store's prefixes"),
    },
    "read after write": {
        "at once": Grade(1),
        "late": Grade(3, "what this gateway wrote is answered from its own index"),
        FAILED: Grade(None),
    },
    "list after write": {
        "at once": Grade(1),
        "late": Grade(2, "a listing does not undo what this gateway wrote a moment before"),
        "never": Grade(3, "a listing does not undo what this gateway wrote a moment before"),
        FAILED: Grade(3, _INDEX),
    },
    "small objects": {"measured": Grade(1), FAILED: Grade(3, "writes wait and are retried")},
    "pages": {
        "in time": Grade(1),
        "slow": Grade(2, _INDEX),
        "time out": Grade(3, f"pages get smaller until they come; {_INDEX}"),
        FAILED: Grade(3, _INDEX),
    },
    "pages by delimiter": {
        "in time": Grade(1),
        "slow": Grade(2, _INDEX),
        "time out": Grade(3, f"directories are listed flat; {_INDEX}"),
        FAILED: Grade(3, f"directories are listed flat; {_INDEX}"),
    },
    "completeness": {
        "whole": Grade(1),
        "repeated": Grade(2, "a key that is listed twice is one key"),
        "incomplete": Grade(None),
        "unknown": Grade(3, "a known backup is read without a listing"),
        FAILED: Grade(3, "a known backup is read without a listing"),
    },
    "order": {
        "by key": Grade(1),
        "other": Grade(2, "passes are compared as a whole, so that no order is presumed"),
        FAILED: Grade(2, "passes are compared as a whole, so that no order is presumed"),
    },
    "page size": {
        "as asked for": Grade(1),
        "smaller": Grade(2, "a listing takes more requests"),
        "larger": Grade(2, "pages are taken as they come"),
        "empty pages": Grade(2, "an empty page is not taken for the end"),
    },
    "start after": {
        "honoured": Grade(1),
        "ignored": Grade(2, "a listing goes on by the store's own token"),
        FAILED: Grade(2, "a listing goes on by the store's own token"),
    },
    "throughput": {"measured": Grade(1), FAILED: Grade(3, "transfers wait and are retried")},
    "request rate": {
        "no limit met": Grade(1),
        "limited": Grade(1, "requests are paced, and wait as long as the store asks"),
        "few": Grade(2, "requests are paced, and wait as long as the store asks"),
        "no recovery": Grade(3, "requests wait until the store answers again"),
        FAILED: Grade(3, "requests wait until the store answers again"),
    },
    "faults": {
        "rare": Grade(1),
        "some": Grade(2, "they are waited out and retried"),
        "many": Grade(3, "they are waited out and retried, for as long as `patience` says"),
    },
}


def graded(seen: Seen) -> Finding:
    """Return what `seen` means."""
    grade = RULES[seen.subject][seen.outcome]
    return Finding(seen.subject, seen.outcome, seen.detail, grade.tier, grade.remedy)


def tier_of(findings: Sequence[Finding]) -> Tier | None:
    """Return the tier that `findings` leave; None when one of them rules the store out."""
    tiers = [finding.tier for finding in findings]
    return None if None in tiers else max((tier for tier in tiers if tier), default=1)
