"""`distill serve`: what the command line says becomes settings, and the supervisor runs them.

Works with the `serve` extra alone.
"""

import ipaddress
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.errors import CheckFailedError, ConfigError, InputError
from export.bundle import BundleManifest, read_manifest, verify_bundle
from export.errors import ExportError
from export.machine import usable_cores
from export.serve_settings import TOKEN_VARIABLE, ServeSettings

logger = logging.getLogger("potstill.serve")


def serve(bundles: list[str], options: Mapping[str, Any]) -> int:
    """Check the bundles, serve them until SIGTERM and return the exit code; `options` are fields of ServeSettings."""
    from export.supervisor import Supervisor

    settings = make_settings(name_bundles(bundles), options, os.environ)
    if problems := [problem for folder in settings.bundles.values() for problem in verify_bundle(folder)]:
        raise CheckFailedError("\n".join([*problems, f"nothing is served, problems found: {len(problems)}"]))
    if settings.doubt is not None:
        _check_doubt(settings.doubt, [read_manifest(folder) for folder in settings.bundles.values()])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(process)d %(message)s")
    warn_when_open(settings)
    return Supervisor(settings).run()


def _check_doubt(path: Path, manifests: Sequence[BundleManifest]) -> None:
    from export.doubt import check_doubt
    from export.doubt_settings import read_doubt

    try:
        settings = read_doubt(path)
    except ExportError as error:
        raise ConfigError(str(error)) from error
    check_doubt(settings, manifests)


def name_bundles(bundles: list[str]) -> dict[str, Path]:
    """Return folders by name from `FOLDER` or `NAME=FOLDER` words; a bundle without a name brings its own."""
    folders: dict[str, Path] = {}
    for word in bundles:
        name, separator, folder = word.partition("=")
        path = Path(folder if separator else word).absolute()
        name = name if separator else read_manifest(path).name
        if name in folders:
            raise InputError(f"found two bundles called {name}; tell them apart with NAME={path}")
        folders[name] = path
    return folders


def make_settings(
    bundles: Mapping[str, Path], options: Mapping[str, Any], environment: Mapping[str, str]
) -> ServeSettings:
    """Return settings with the number of workers and the token (from the environment) filled in."""
    found = {"bundles": bundles, "token": environment.get(TOKEN_VARIABLE) or None}
    try:
        settings = ServeSettings.model_validate({**options, **found})
    except ValidationError as error:
        problems = (f"--{str(each['loc'][0]).replace('_', '-')}: {each['msg']}" for each in error.errors())
        raise ConfigError(f"{'; '.join(problems)} (see: distill serve --help)") from error
    return settings.model_copy(update={"workers": settings.workers or usable_cores()})


def warn_when_open(settings: ServeSettings) -> None:
    """Log a warning when others reach the server and need no token."""
    if settings.token is None and not is_local(settings.host):
        logger.warning(
            "%s: anybody who reaches this address may ask; set %s to want a token", settings.host, TOKEN_VARIABLE
        )


def is_local(host: str) -> bool:
    """Say whether only this machine reaches `host`."""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)
