"""Pages in a frame of a notebook, in a real browser. Skipped where there is none."""

import html
import os
import shutil
from pathlib import Path

import pytest

from motret.kaggle import display

PAGE = """<!doctype html><html><head><title>page</title></head><body>
<a href="#there">go</a><p id="there">place "one" &amp; <b>bold</b></p></body></html>"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.mark.skipif(BROWSER is None, reason="no browser")
@pytest.mark.parametrize("sandbox", ["", 'sandbox="allow-scripts"'])
def test_links_of_a_framed_page_stay_in_it(tmp_path: Path, sandbox: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
    output = html.escape(display.framed_page(PAGE, 300))
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f'<iframe {sandbox} srcdoc="{output}"></iframe>')  # as viewers show outputs
    args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, headless=True, args=args)
        view = browser.new_page()
        view.goto(notebook.as_uri())
        framed = view.frame_locator("iframe").frame_locator("iframe")
        framed.get_by_text("go").click()
        target = framed.locator("#there:target")  # what the link led to, in the same page
        playwright.expect(target).to_have_text('place "one" & bold', timeout=20_000)
        browser.close()


def test_a_page_that_is_too_large_is_only_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("IPython", reason="pip install -r tests/requirements.txt")
    (tmp_path / "page.html").write_text(PAGE)
    monkeypatch.setattr(display, "MAX_INLINE_BYTES", 10)
    display.show_page(tmp_path / "page.html")
    assert "open it from the notebook's output" in capsys.readouterr().out
