"""Write the generated parts of the reference pages anew: settings, artifacts, errors.

After a change of a setting, a column, a key or a message, from the repository's root: ``python -m scripts.reference``.
"""

from gpu_simulate_test.config.paths import project_root
from scripts.reference import artifacts, errors, settings


def main() -> None:
    """Write all pages."""
    root = project_root()
    (root / settings.PAGE).write_text(settings.rendered(), encoding="utf-8")
    for path, rendered in [
        *((path, artifacts.rendered) for path in sorted((root / artifacts.FOLDER).glob("*.md"))),
        (root / errors.PAGE, errors.rendered),
    ]:
        path.write_text(rendered(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
