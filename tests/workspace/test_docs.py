"""The pages of the documentation name files, notes and make targets that exist."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rushlight_tensor.core.op import Op

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@EVERY_PAGE
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)  # a lambda of C++ looks like a link
    targets = re.findall(r"\]\(([^)#]+)\)", prose)
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


def test_notes_that_the_sources_name_exist_once():
    written, named = [], set()
    for folder in ("packages", "launch", "services", "tests", "tools", "benchmarks"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix not in (".py", ".c", ".h", ".cuh") or path == Path(__file__):
                continue
            text = re.sub(r"\n[ \t]*(#|//|\*)?[ \t]*", "\n", path.read_text())
            written += re.findall(r"^(?:/\* )?Note \[([^\]]+)\]$", text, flags=re.MULTILINE)
            named |= {" ".join(title.split()) for title in re.findall(r"Note\s+\[([^\]]+)\]", text)}
    assert named - set(written) == set()
    assert sorted(written) == sorted(set(written))


def test_the_table_of_a_records_fields_is_complete():
    fields = set(inspect.signature(Op).parameters) - {"name"}
    rows = re.findall(r"^   \| (`[^|]+) \|", (ROOT / "docs/architecture.md").read_text(), flags=re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(fields)


@EVERY_PAGE
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^\s*make ([a-z-]+)", page.read_text(), flags=re.MULTILINE))
    named |= set(re.findall(r"`make ([a-z-]+)[^`]*`", page.read_text()))
    assert named - targets == set()


# Every fenced block of the pages is run, or stands here with why it is not.
FRAGMENTS = {
    "docs/distributed.md": "model and data are the reader's",
    "CONTRIBUTING.md": "a record, as it stands in the package",
}
PACKAGE_PAGES = sorted(
    [*ROOT.glob("packages/*/README.md"), ROOT / "launch/README.md", ROOT / "services/train/README.md"]
)


def blocks(page, language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [text for of, text in fenced if of == language]


@pytest.mark.parametrize(
    "page", [p for p in [*PAGES, *PACKAGE_PAGES] if blocks(p, "python")], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_python_of_the_pages_runs(page, tmp_path):
    name = page.relative_to(ROOT).as_posix()
    for block in blocks(page, "python"):
        if name in FRAGMENTS:
            continue
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr


def commands(page):
    lines = [line.partition("#")[0].strip() for block in blocks(page, "") for line in block.splitlines()]
    return [line for line in lines if line.startswith("rushlight train")]


def test_training_commands_of_the_readme_compose(tmp_path):
    """As written; what they would do is only shown (`--cfg job`), since a test has no hours."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = [c for c in commands(ROOT / "README.md") if "resume" not in c and "--multirun" not in c]
    assert len(found) >= 2
    for command in found:
        done = subprocess.run(
            f"{command} --cfg job",
            shell=True, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "optim:" in done.stdout
