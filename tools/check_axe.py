"""Checks pages of the built site with axe-core, light and dark, at the width of a phone.

``python tools/check_axe.py build/html``, with Chromium, Playwright and axe-playwright-python.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

PAGES = (
    "index", "first/table", "guide/networks", "guide/speed", "course/5-backpropagation",
    "gallery/plot_01_digits", "api/generated/cmlp.DivergenceError", "play", "search", "glossary",
)  # fmt: skip
"""One of each kind: with tables, formulas, code, pictures, generated ones, and the search."""

WIDTH = 390


def faults_of(page: Page, scheme: str) -> list[str]:
    """Return what is serious or critical, and whether the page scrolls sideways."""
    rules = {"runOnly": ["color-contrast"]} if scheme == "dark" else None  # the rest is the same
    found = [
        f"{each['id']}: {node['html'][:120]}"
        for each in Axe().run(page, options=rules).response["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:3]
    ]
    wide = page.evaluate("document.documentElement.scrollWidth")
    return found + ([f"it is {wide} pixels wide"] if wide > WIDTH else [])


def main() -> None:
    """Print the faults; exit with 1 if there are any."""
    root, found = Path(sys.argv[1]).resolve(), []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": WIDTH, "height": 844})
        for name in PAGES:
            page.goto((root / f"{name}.html").as_uri())
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.locator(f"html[data-theme={scheme}]").wait_for()
                found += [f"{name}, {scheme}: {each}" for each in faults_of(page, scheme)]
        chromium.close()
    print(*found, f"{2 * len(PAGES)} pages in Chromium, {len(found)} faults", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
