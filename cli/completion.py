"""`backgate completion SHELL`: the script that makes a shell complete commands and targets."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Examples:
      backgate completion bash > /etc/bash_completion.d/backgate
      backgate completion zsh > "${fpath[1]}/_backgate"
      backgate completion fish > ~/.config/fish/completions/backgate.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # the choice above holds only shells that click knows
    root = context.find_root().command
    click.echo(found(root, {}, "backgate", "_BACKGATE_COMPLETE").source())
