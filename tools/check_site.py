"""Checks the built site: no dead link, anchor or picture, and nothing that another host provides.

``python tools/check_site.py build/html``
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag


class Page(HTMLParser):
    """The links, the anchors and the loaded files of a page, and pictures without a description."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors = {"", "top"}
        self.undescribed: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("img", "script", "source", "iframe") and given.get("src"):
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") not in ("next", "prev", "canonical"):
            self.loaded.append(given.get("href", ""))
        if tag == "img" and "alt" not in given:
            self.undescribed.append(given.get("src", ""))


def faults(root: Path) -> list[str]:
    """Return what is wrong, a line for each fault."""
    paths = [p for p in sorted(root.rglob("*.html")) if "_static" not in p.parts]
    pages = {path: Page(path) for path in paths}
    found = []
    for path, page in pages.items():
        here = path.relative_to(root)
        found += [f"{here}: a picture has no description: {name}" for name in page.undescribed]
        found += [f"{here}: {url} is of another host" for url in page.loaded if "//" in url]
        for url in (*page.links, *page.loaded):
            if ":" in url.split("/")[0] or url.startswith("//"):
                continue  # another host's, or mailto
            file, anchor = urldefrag(unquote(url).split("?")[0])
            there = (path.parent / file).resolve() if file else path
            if there.is_dir():
                there /= "index.html"
            if not there.exists():
                found.append(f"{here}: {url} is dead")
            elif there in pages and anchor not in pages[there].anchors:
                found.append(f"{here}: {url} has no such anchor")
    return found


def main() -> None:
    """Print the faults; exit with 1 if there are any."""
    root = Path(sys.argv[1]).resolve()
    n_pages, found = len([*root.rglob("*.html")]), faults(root)
    print(*found, f"{n_pages} pages, {len(found)} faults", sep="\n")
    sys.exit(bool(found) or not n_pages)


if __name__ == "__main__":
    main()
