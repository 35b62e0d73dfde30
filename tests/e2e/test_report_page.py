"""The report of a run in a real browser."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Outcome, Project

CHROMIUM = shutil.which("chromium")
WIDTH = 360  # of a small phone; a browser window cannot be as narrow, a frame can
FRAME = """<iframe width="{width}" height="4000" srcdoc="{page}" onload="
  const page = this.contentDocument;
  document.body.dataset.found = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    charts: page.querySelectorAll('svg').length,
    heading: page.querySelector('h1').textContent,
    fetched: this.contentWindow.performance.getEntriesByType('resource').map(one => one.name),
  }})"></iframe>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_a_browser_shows_the_report_on_a_phone_and_fetches_nothing(
    finished: tuple[Project, Outcome], tmp_path: Path
) -> None:
    page = (finished[0].run / "report.html").read_text(encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=WIDTH, page=html.escape(page)), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]
    command = [str(CHROMIUM), *options, f"--user-data-dir={tmp_path / 'user'}", f"file://{frame}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    data = re.search(r'data-found="([^"]*)"', shown.stdout)
    assert data is not None, shown.stderr
    found = json.loads(html.unescape(data[1]))
    assert found["width"] <= WIDTH
    assert found["charts"] >= 4
    assert found["heading"] == "shop"
    assert found["fetched"] == []
