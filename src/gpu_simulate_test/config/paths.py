"""Where the project's own files are, in a checkout and in an installed wheel."""

from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parents[1]
_CHECKOUT = PACKAGE_DIR.parents[1]


def in_checkout() -> bool:
    """True when the package runs from a source checkout (editable install)."""
    return (_CHECKOUT / "pyproject.toml").is_file() and PACKAGE_DIR.parent.name == "src"


def project_root() -> Path:
    """The checkout, or the working folder when installed from a wheel."""
    return _CHECKOUT if in_checkout() else Path.cwd()


def config_dir() -> Path:
    """The Hydra config tree; a wheel carries a copy inside the package."""
    return (_CHECKOUT / "configs" if in_checkout() else PACKAGE_DIR / "configs") / "compare_vidur_real"
