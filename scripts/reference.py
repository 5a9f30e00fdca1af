#!/usr/bin/env python3
"""Write the generated parts of the reference pages anew: settings, artifacts, errors.

After a change of a setting, a column, a key or a message, from the repository's root: ``python -m scripts.reference``.
"""

from pathlib import Path

from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.config.reference import reference
from gpu_simulate_test.io.reference import FOLDER, rendered
from scripts import error_reference

SETTINGS = Path("docs/reference/settings.md")


def pages() -> dict[Path, str]:
    """Every page that is generated, whole or in part, as it should be; paths from the repository's root."""
    root = project_root()
    artifacts = {path.relative_to(root): path.read_text(encoding="utf-8") for path in (root / FOLDER).glob("*.md")}
    errors = error_reference.rendered((root / error_reference.PAGE).read_text(encoding="utf-8"))
    told = {SETTINGS: reference(), error_reference.PAGE: errors}
    return told | {path: rendered(text) for path, text in artifacts.items()}


if __name__ == "__main__":
    for path, text in pages().items():
        (project_root() / path).write_text(text, encoding="utf-8")
