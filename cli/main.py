"""The command `backgate`: finds the sub-command, and says in one line what went wrong.

Each command is a module of this folder, imported only when it is asked for, so that `backgate
--help` and shell completion stay quick.
"""

import errno
import importlib
import logging
import os
import resource
import sys
from collections.abc import Sequence

import click

from backgate import __version__
from backgate.cli.logs import log_to_stderr
from backgate.gateway.errors import BackgateError, UsageError

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes

FILES_MAX = 65_536  # descriptors; as in the unit, and more than a mount was seen to use
HELP_MAX = 200  # letters that say what a command is for: the whole first sentence, on two lines

COMMANDS = {
    "Mounting": ("mount", "umount", "status"),
    "Looking and restoring, without a mount": ("backups", "ls", "cat", "cp", "find"),
    "Looking after": (
        "cache",
        "spool",
        "turns",
        "validate",
        "doctor",
        "providers",
        "plugins",
        "completion",
    ),
}

log = logging.getLogger(__name__)


class Commands(click.Group):
    """The sub-commands, by topic; each is imported when it is first named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in COMMANDS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"backgate.cli.{cmd_name}")
        command: click.Command = module.command
        _add_log_options(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for topic, names in COMMANDS.items():
            with formatter.section(topic):
                commands = [(name, self.get_command(ctx, name)) for name in names]
                formatter.write_dl(
                    [
                        (name, found.get_short_help_str(HELP_MAX))
                        for name, found in commands
                        if found
                    ]
                )


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Begin with a directory instead of a bucket, which needs no account:
  backgate mount ./store /mnt/backgate      write backups to /mnt/backgate/repository
  ls /mnt/backgate/backups                  every completed backup, as directories
  backgate umount /mnt/backgate             waits until everything is stored""",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def backgate() -> None:
    """A gateway between backup tools and object stores.

    Mount an object store as a path, point any backup tool at repository/, and copy single files
    back out of backups/ without restoring the rest.

    TARGET is the name of a repository in the configuration ($BACKGATE_CONFIG, else
    ~/.config/backgate/backgate.toml, else /etc/backgate/backgate.toml), or a URL
    (s3://bucket/prefix, file:///path), or a directory (./store). Behind a colon it may name one
    place in the tree: offsite:backups/restic/web01/latest.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line `arguments` (the process's own by default) and exit with its code."""
    log_to_stderr(0)
    _allow_many_files()
    sys.exit(_run(arguments))


def _allow_many_files() -> None:
    """Take as many descriptors as we may have; login shells hand out 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = backgate.main(arguments, prog_name="backgate", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return WRONG_USAGE
    except click.ClickException as error:
        return _complain(_usage(error), WRONG_USAGE)
    except BaseExceptionGroup as error:
        return _failed(_cause(error))
    except Exception as error:
        return _failed(error)


def _failed(error: BaseException) -> int:
    """Say what went wrong, with the traceback when debugging, and return the exit code."""
    log.debug("traceback", exc_info=error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        # Who reads us has enough, as `backgate ls | head`; Python must not flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if isinstance(error, UsageError):
        return _complain(str(error), WRONG_USAGE)
    if isinstance(error, BackgateError):
        return _complain(str(error), FAILED)
    if isinstance(error, OSError) and error.strerror:
        where = os.fsdecode(error.filename) if error.filename else "operating system"
        return _complain(f"{where}: {error.strerror}", FAILED)
    kind = type(error).__name__
    return _complain(f"unexpected {kind}: {error}; `--debug` shows where", FAILED)


def _cause(error: BaseException) -> BaseException:
    """Return the one error to tell of; of a nursery's group, the first raised on purpose."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [_cause(inner) for inner in error.exceptions]
    return next((cause for cause in causes if isinstance(cause, BackgateError)), causes[0])


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    command = context.command_path
    name = command.partition(" ")[2]
    return f"{name}: {message}; see {command} --help" if name else f"{message}; see {command} -h"


def _complain(message: str, code: int) -> int:
    click.echo(f"backgate: {message}", err=True)
    return code


def _add_log_options(command: click.Command) -> None:
    """Give `command` and its sub-commands -v and --debug, to be written at the end of a line."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _add_log_options(inner)
    elif not any(parameter.name == "verbose" for parameter in command.params):
        command.params += [
            click.Option(
                ["-v", "--verbose"],
                count=True,
                expose_value=False,
                callback=lambda _context, _parameter, count: _log_more(count),
                help="Say more; twice: everything.",
            ),
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                callback=lambda _context, _parameter, on: _log_more(2 if on else 0),
                help="As -vv, and show where an error came from.",
            ),
        ]


def _log_more(verbosity: int) -> None:
    if verbosity:
        log_to_stderr(verbosity)
