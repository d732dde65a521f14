"""`python -m benchmarks [--quick] [--rounds N] [--output FILE] [SCENARIO ...]`."""

import argparse
import os
import shlex
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # the server and the gateway that tests run, too

from servers.seaweedfs import seaweedfs  # noqa: E402

from benchmarks.bench import QUICK, Bench, Measurement, Sizes  # noqa: E402
from benchmarks.report import Page, table  # noqa: E402
from benchmarks.scenarios import SCENARIOS  # noqa: E402

PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> None:
    arguments = _arguments()
    known = [one.name for one in SCENARIOS]
    names = [name for name in known if name in (arguments.scenarios or known)]
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.rounds:
        sizes = replace(sizes, rounds=arguments.rounds)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.chdir(ROOT)
    home = Path(tempfile.mkdtemp(prefix="backgate-bench-", dir=arguments.directory))
    try:
        with seaweedfs(directory=home / "seaweedfs") as server:
            bench = Bench(server, home, sizes)
            output = arguments.output or (None if arguments.quick else PAGE)
            tables = []
            for name in names:
                measurements = _run(name, bench)
                tables += [table(measurement) for measurement in measurements]
                if output is not None:
                    _write(output, _command(arguments, name), bench, measurements)
            print("\n".join(["", *tables]))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _write(output: Path, command: str, bench: Bench, measurements: list[Measurement]) -> None:
    page = Page(output.read_text() if output.exists() else "")
    page.put(command, bench, measurements)
    output.parent.mkdir(exist_ok=True)
    output.write_text(page.text())


def _run(name: str, bench: Bench) -> list[Measurement]:
    print(f"{name}:", flush=True)
    return next(one for one in SCENARIOS if one.name == name).run(bench)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = [one.name for one in SCENARIOS]
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="little data, one round; no page")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--output", type=Path, help=f"update this page instead of {PAGE.name}")
    parser.add_argument("--directory", type=Path, help="where the data go, on disk; up to 60 GB")
    arguments = parser.parse_args()
    for name in arguments.scenarios:
        if name not in known:
            parser.error(f"no scenario {name!r}: there are {', '.join(known)}")
    return arguments


def _command(arguments: argparse.Namespace, scenario: str) -> str:
    """Return what makes the same figures: what they are, not where they are kept."""
    given = ["--quick"] if arguments.quick else []
    given += ["--rounds", str(arguments.rounds)] if arguments.rounds else []
    return f"make bench ARGS={shlex.join([*given, scenario])!r}"


if __name__ == "__main__":
    main()
