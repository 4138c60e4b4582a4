"""The documentation as a site: every page, every public name, no dead link."""

import os
import re
import subprocess
import sys

import yaml
from conftest import ROOT

import cnn_jax

PAGES = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}


def pages_of(part) -> set[str]:
    """The pages of a part of the navigation."""
    if isinstance(part, str):
        return {part}
    return set().union(*map(pages_of, part.values() if isinstance(part, dict) else part))


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    assert pages_of(yaml.safe_load(text)["nav"]) == PAGES


def test_every_public_name_is_in_the_reference():
    shown = set(re.findall(r"^::: cnn_jax\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE))
    assert {*cnn_jax.__all__} - {"RECIPES"} <= shown


def test_the_site_is_built_without_a_warning(tmp_path):
    """`strict` in mkdocs.yml makes an error of each: a page that is not there, an anchor, a cross-reference."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    assert 'id="cnn_jax.create_model"' in api and "no such network" in api
