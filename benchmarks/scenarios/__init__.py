"""What is measured: one file for each kind of work."""

from benchmarks.bench import Scenario
from benchmarks.scenarios.backup import Backup
from benchmarks.scenarios.compact import Compact
from benchmarks.scenarios.disk_restore import DiskRestore
from benchmarks.scenarios.files import Files
from benchmarks.scenarios.importing import Importing
from benchmarks.scenarios.listing import Listing
from benchmarks.scenarios.many import Many
from benchmarks.scenarios.prune import Prune
from benchmarks.scenarios.random_reads import RandomReads
from benchmarks.scenarios.restic_restore import ResticRestore
from benchmarks.scenarios.sequential import Sequential
from benchmarks.scenarios.stream import Stream
from benchmarks.scenarios.writing import Writing

SCENARIOS: list[Scenario] = [
    Sequential(),
    RandomReads(),
    Listing(),
    Many(),
    Importing(),
    Writing(),
    Stream(),
    Files(),
    Backup(),
    Prune(),
    Compact(),
    ResticRestore(),
    DiskRestore(),
]
