"""`backgate plugins`: the providers, profiles and formats that are there, and whose they are."""

import click

from backgate.cli.output import json_option, print_json, print_table


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Show the providers, profiles and formats that are installed.

    Others are added by installing a Python package that announces them under the entry points
    backgate.providers, backgate.profiles or backgate.formats; a name that two packages claim is
    refused.

    \b
    Example:
      backgate plugins
    """
    from backgate.fs.formats import installed_formats
    from backgate.gateway.plugins import origin
    from backgate.gateway.profiles import profiles
    from backgate.gateway.providers import schemes

    found = [
        {"kind": kind, "name": name, "from": origin(plugin)}
        for kind, plugins in (
            ("provider", schemes()),
            ("profile", profiles()),
            ("format", installed_formats()),
        )
        for name, plugin in sorted(plugins.items())
    ]
    if as_json:
        print_json(found)
    else:
        print_table(("KIND", "NAME", "FROM"), [tuple(one.values()) for one in found])
