"""The page to try a server: the files of a folder in the package and the report's stylesheet, under a strict policy.

No path of a request reaches the file system: what can be asked for is a table made at the start. The files are open
without a token, because they say nothing; the page asks for the token before it asks the server.
"""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import Response

from export.report_style import STYLE

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_FILES = {
    "/": "index.html",
    "/page.css": "page.css",
    "/page.js": "page.js",
    "/batch.js": "batch.js",
    "/table.js": "table.js",
    "/server.js": "server.js",
}
STYLE_PATH = "/report.css"
PAGE_PATHS = frozenset({*_FILES, STYLE_PATH})


def add_page(api: FastAPI) -> None:
    """Add the page and what it loads to `api`; raise FileNotFoundError when the package was installed without it."""
    folder = files("export") / "page"
    contents = {path: (name, (folder / name).read_text(encoding="utf-8")) for path, name in _FILES.items()}
    contents[STYLE_PATH] = ("report.css", STYLE)
    for path, (name, text) in contents.items():
        _add_file(api, path, text, f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8")


def _add_file(api: FastAPI, path: str, text: str, media_type: str) -> None:
    @api.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(text, media_type=media_type, headers=_HEADERS)
