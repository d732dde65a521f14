"""Where a provider answers: worked out of its profile and of what somebody configured.

A user names a provider and a region. Who writes the address instead has both found in it, because
regions, buckets and accounts are parts of the names that providers give their hosts.
"""

import difflib
import logging
import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from msgspec import structs

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import ConfigError
from backgate.gateway.profiles import UNKNOWN, Profile, profile, profiles

DEFAULT = "aws"  # the provider of a URL without provider and endpoint_url: what s3:// means
NATIVE = {"az": "azure-blob", "gs": "google-storage"}  # whose protocols nobody else speaks

_LABEL = "[a-z0-9-]+"  # what a region or an account is in a host's name
_FIELD = re.compile(r"\\{(region|account)\\}")  # as re.escape leaves it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send requests, what to sign them for, and how to speak there."""

    url: str
    region: str
    profile: Profile


def endpoint_of(config: RepositoryConfig) -> Endpoint:
    """Return where the store of `config` answers.

    Raises `ConfigError` for a provider or a region that there is not, and when something is missing
    that the address is made of.
    """
    name = config.provider or _provider_of(config)
    found = config.profile or profile(name, config.origin)
    _refuse_another_protocol(config, name, found)
    if config.endpoint_url is None:
        region = _region(config, found)
        url = _address(config, found, region)
    else:
        url = config.endpoint_url
        told = _host_fields(found, url)
        if told is None:  # what answers there is not the provider itself
            found = structs.replace(found, endpoint=None)
        if told is not None and found.https_only and not url.startswith("https:"):
            raise ConfigError(
                f"{config.origin}: endpoint_url: {found.title} answers https only, not {url!r}"
            )
        told_region = (told or {}).get("region")
        region = told_region or config.region or found.region or _missing(config, found)
    return Endpoint(url, found.signing_region or region, found)


def provider_at(url: str) -> str | None:
    """Return the name of the S3 profile whose hosts `url` names; None when nobody's."""
    for name in profiles():
        found = profile(name)
        if found.scheme == "s3" and _host_fields(found, url) is not None:
            return name
    return None


def _refuse_another_protocol(config: RepositoryConfig, name: str, found: Profile) -> None:
    scheme = config.url.partition(":")[0].lower()
    if found.scheme != scheme and (scheme in NATIVE or found.scheme in NATIVE):
        raise ConfigError(
            f"{config.origin}: provider: {name!r} is for {found.scheme}:// URLs, not {scheme}://"
        )


def _provider_of(config: RepositoryConfig) -> str:
    scheme = config.url.partition(":")[0].lower()
    if scheme in NATIVE:
        return NATIVE[scheme]
    if config.endpoint_url is None:
        return DEFAULT
    name = provider_at(config.endpoint_url)
    if name is None:
        log.warning(
            "%s: nothing is known of %s: as little as possible is expected of it; "
            "`backgate validate` measures what it can do, `backgate providers` lists who is known",
            config.origin,
            config.endpoint_url,
        )
    return name or UNKNOWN


def _region(config: RepositoryConfig, found: Profile) -> str:
    region = config.region or found.region or _missing(config, found)
    if found.regions and region not in found.regions:
        near = difflib.get_close_matches(region, found.regions, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{config.origin}: region: {region!r} is none of {found.title} — {hint}"
            f"{_choices(found)}; for one that is newer write endpoint_url"
        )
    return region


def _missing(config: RepositoryConfig, found: Profile) -> NoReturn:
    raise ConfigError(f"{config.origin}: region is missing: {_choices(found)}")


def _address(config: RepositoryConfig, found: Profile, region: str) -> str:
    if found.endpoint is None:
        raise ConfigError(
            f"{config.origin}: endpoint_url is missing: {found.title} has no address of its own"
        )
    if "{account}" not in found.endpoint:
        if config.account is not None:
            raise ConfigError(f"{config.origin}: account: addresses of {found.title} have none")
        return found.endpoint.format(region=region)
    if config.account is None:
        raise ConfigError(
            f"{config.origin}: account is missing: an address of {found.title} is "
            f"{found.endpoint}: write account = ... or endpoint_url = ..."
        )
    return found.endpoint.format(region=region, account=config.account)


def _choices(found: Profile) -> str:
    if not found.regions:
        return f"write the region of your account at {found.title}"
    return f"{found.title} has {', '.join(sorted(found.regions))}"


def _host_fields(found: Profile, url: str) -> dict[str, str] | None:
    """Return the region and account in `url`'s host, as far as there; None for another's host."""
    host = urlsplit(url).hostname or ""
    for template in (found.endpoint, *found.other_endpoints):
        if template is not None:
            pattern = re.escape(urlsplit(template).netloc)
            match = re.fullmatch(_FIELD.sub(rf"(?P<\1>{_LABEL})", pattern), host)
            if match is not None:
                return match.groupdict()
    return None
