"""The pages of artifacts say what the code says: columns, keys of the metadata, gates."""

import re

import pytest

from gpu_simulate_test.analysis import gates
from gpu_simulate_test.config.paths import project_root
from scripts.reference.artifacts import FOLDER, KEYS, TABLES, rendered

TEXT = "".join(path.read_text(encoding="utf-8") for path in sorted((project_root() / FOLDER).glob("*.md")))


def test_the_pages_are_what_is_generated() -> None:
    assert rendered(TEXT) == TEXT, "python -m scripts.reference"


@pytest.mark.parametrize(("kind", "names"), [("columns", TABLES), ("keys", KEYS)])
def test_every_table_and_every_metadata_file_is_on_a_page_once(kind: str, names: dict[str, object]) -> None:
    assert sorted(re.findall(rf"<!-- {kind} (\w+) -->", TEXT)) == sorted(names)


def test_a_change_of_either_side_is_noticed() -> None:
    assert rendered(TEXT.replace("| `request_id`<br><small>integer", "| `request`<br><small>integer", 1)) == TEXT
    with pytest.raises(KeyError):
        rendered("<!-- columns no_such_table -->\n<!-- end -->")


@pytest.mark.parametrize("name", TABLES)
def test_every_column_has_a_meaning(name: str) -> None:
    table = TABLES[name]
    assert table.doc and table.stage
    assert table.optional <= set(table.columns)
    for field in [*table.schema, *([table.family] if table.family is not None else [])]:
        assert len(field.metadata[b"doc"].decode().split()) >= 2, field.name


def test_the_gates_of_the_page_are_those_of_the_code() -> None:
    section = TEXT[TEXT.index("| gate | flagged | void |") :].partition("\n\n")[0]
    listed = [line.split("|")[1] for line in section.splitlines()[2:]]
    assert [name.strip() for names in listed for name in names.split(",")] == list(gates.NAMES)
