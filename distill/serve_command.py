"""The command `distill serve`: its options are the fields of ServeSettings, so that each is described once."""

from inspect import Parameter, Signature
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from export.serve_settings import ServeSettings

_Bundles = Annotated[list[str], typer.Argument(metavar="[NAME=]BUNDLE...", help="bundle directories")]
_NO_OPTIONS = {"bundles", "token"}


def serve(bundles: _Bundles, **options: Any) -> int:
    """Answer over HTTP: text-embeddings-inference's /predict and the Open Inference Protocol v2.

    With POTSTILL_TOKEN in the environment every request but a health check has to carry it as its bearer token.
    """
    from distill.serve import serve as run_server

    return run_server(bundles, options)


def _parameter(name: str, field: FieldInfo) -> Parameter:
    annotation = Annotated[field.annotation, typer.Option(help=field.description)]  # type: ignore[name-defined]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


_parameters = [
    Parameter("bundles", Parameter.POSITIONAL_OR_KEYWORD, annotation=_Bundles),
    *(_parameter(name, field) for name, field in ServeSettings.model_fields.items() if name not in _NO_OPTIONS),
]
# typer reads both of these.
serve.__signature__ = Signature(_parameters)  # type: ignore[attr-defined]
serve.__annotations__ = {each.name: each.annotation for each in _parameters}
