"""Facts about the files of the page as a server gives them out; what they do is tried in a browser, in tests/e2e."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from export.page_api import PAGE_PATHS
from export.report_style import STYLE
from tests.serving import LocalServer, local_server

SOURCES = {
    file.name: file.read_text(encoding="utf-8") for file in (files("export") / "page").iterdir() if file.is_file()
}


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> Iterator[LocalServer]:
    with local_server({"shop": tiny_bundle}, token="secret") as client:
        yield client


@pytest.mark.parametrize("path", sorted(PAGE_PATHS))
def test_a_file_comes_without_a_token_under_a_strict_policy(client: LocalServer, path: str) -> None:
    reply = client.ask("GET", path)
    assert (reply.status, bool(reply.body)) == (200, True)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "://" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_everything_else_wants_the_token(client: LocalServer) -> None:
    assert client.ask("GET", "/info").status == 401
    assert client.ask("POST", "/explain", {"text": "a"}).status == 401
    assert client.ask("POST", "/explain", {"text": "a"}, authorization="Bearer secret").status == 200


def test_every_file_of_the_folder_is_served_and_the_stylesheet_is_the_reports(client: LocalServer) -> None:
    served = {client.ask("GET", path).body.decode() for path in PAGE_PATHS}
    assert served == {*SOURCES.values(), STYLE}


@pytest.mark.parametrize("path", ["/page", "/../server.py", "/%2e%2e/server.py", "/page/page.js", "/index.html"])
def test_no_other_path_finds_a_file(client: LocalServer, path: str) -> None:
    assert client.ask("GET", path, authorization="Bearer secret").status == 404


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_file_names_an_address_or_makes_markup_out_of_text(name: str) -> None:
    assert re.findall(r"https?:|//[a-z]+\.|@import|url\(", SOURCES[name]) == []
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", SOURCES[name]) == []
    )


def test_the_page_has_no_inline_script_or_style_and_names_every_field() -> None:
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Reader().feed(SOURCES["index.html"])
    assert all("src" in attributes for tag, attributes in tags if tag == "script")
    assert "style" not in {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name == "style" or name.startswith("on")]
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for script in ("page.js", "batch.js"):
        assert set(re.findall(r'[^.]\bget\("([\w-]+)"\)', SOURCES[script])) <= set(ids)
