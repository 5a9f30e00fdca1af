"""An engine in a version that we do not drive is refused by name, before it is imported."""

from pathlib import Path

import pytest

from tests.support.commands import error_line, run


@pytest.mark.parametrize(
    ("command", "package", "version"),
    [
        ("real-bench", "transformers", "5.12.1"),
        ("vidur-profile", "transformers", "6.0.0"),
        ("real-bench", "torch", "2.8.0"),
    ],
)
def test_another_version_is_one_line(
    command: str,
    package: str,
    version: str,
    settings: tuple[str, ...],
    workload: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = tmp_path / f"{package}-{version}.dist-info" / "METADATA"
    record.parent.mkdir()
    record.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    done = run(command, *settings, "overwrite=true")
    line = error_line(done, 4)
    assert f"needs {package}" in line
    assert f"this is {version}" in line
