"""The pages of the documentation name files, notes and make targets that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@EVERY_PAGE
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


@EVERY_PAGE
def test_paths_exist(page):
    named = re.findall(
        r"`((?:packages|services|launch|configs|tests|examples|benchmarks|tools|docs)/[\w./-]*)`", page.read_text()
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


@EVERY_PAGE
def test_notes_exist(page):
    named = {" ".join(title.split()) for title in re.findall(r"\*Note\s+\[([^\]]+)\]\*", page.read_text())}
    folders = ("packages", "launch", "services")
    sources = "\n".join(path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert {title for title in named if f"Note [{title}]" not in sources} == set()


@EVERY_PAGE
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^\s*make ([a-z-]+)", page.read_text(), flags=re.MULTILINE))
    named |= set(re.findall(r"`make ([a-z-]+)[^`]*`", page.read_text()))
    assert named - targets == set()
