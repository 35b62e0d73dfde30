"""The command `distill serve`: its options are the fields of ServeSettings, so that each is described once."""

from types import NoneType
from typing import Any, get_args

import click
from pydantic.fields import FieldInfo

from export.serve_settings import ServeSettings

_NO_OPTIONS = {"bundles", "token"}


@click.command()
@click.argument("bundles", metavar="[NAME=]BUNDLE...", nargs=-1, required=True, help="bundle directories")
def serve(bundles: tuple[str, ...], **options: Any) -> int:
    """Answer over HTTP: text-embeddings-inference's /predict and the Open Inference Protocol v2.

    With POTSTILL_TOKEN in the environment every request but a health check has to carry it as its bearer token.
    """
    from distill.serve import serve as run_server

    return run_server(list(bundles), options)


def _option(name: str, field: FieldInfo) -> click.Option:
    spelled = f"--{name.replace('_', '-')}"
    kind = next((each for each in get_args(field.annotation) if each is not NoneType), field.annotation)
    return click.Option(
        [f"{spelled}/--no-{spelled[2:]}" if kind is bool else spelled],
        type=kind,
        default=field.default,
        show_default=field.default is not None,
        help=field.description,
    )


serve.params += [_option(name, field) for name, field in ServeSettings.model_fields.items() if name not in _NO_OPTIONS]
