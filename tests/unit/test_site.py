"""The site and every Markdown file beside it: builds without a warning, and no link leads nowhere."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from gpu_simulate_test.config.paths import project_root

ROOT = project_root()
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_TYPED_OR_MADE = re.compile(r"^ *```.*?^ *```|<!-- [a-z]+ \w+ -->.*?<!-- end -->", re.DOTALL | re.MULTILINE)
_COPY = 16  # words
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """Every Markdown file that is tracked."""
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a checkout")
    return [ROOT / line for line in tracked.stdout.splitlines()]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and MkDocs make them."""
    text = _CODE.sub(lambda found: found[0] if found[0].count("\n") == 0 else "", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+?)(?: \{#([\w-]+)\})?$", text, re.MULTILINE)
    return {
        own or re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()).replace(" ", "-")
        for title, own in headings
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; strict: a warning ends it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_page_of_the_site_asks_nothing_of_another_machine(site: Path) -> None:
    built = list(site.rglob("*.html"))
    assert site / "index.html" in built
    for page in built:
        asked = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text(encoding="utf-8"))
        assert asked == [], page


def test_no_link_of_a_tracked_page_leads_nowhere() -> None:
    dead = []
    for page in pages():
        for target in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = unquote(target).partition("#")
            there = (page.parent / path).resolve() if path else page
            if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert dead == []


def test_no_two_pages_say_the_same() -> None:
    """So many words in a row are a copy, and the copy goes stale; what is made of the code may be made twice."""
    found: dict[tuple[str, ...], Path] = {}
    twice = []
    for page in pages():
        words = re.findall(
            r"[\w.=/-]+", re.sub(r"\]\([^)]*\)", "]", _TYPED_OR_MADE.sub("", page.read_text(encoding="utf-8")))
        )
        for start in range(len(words) - _COPY):
            run = tuple(words[start : start + _COPY])
            if (first := found.setdefault(run, page)) != page:
                twice.append(f"{first.relative_to(ROOT)}, {page.relative_to(ROOT)}: {' '.join(run)}")
    assert twice == []
