"""Documents that are read and written whole: JSON in a file of its own.

PROVENANCE = Document(Provenance, "provenance.json", remedy="…")
PROVENANCE.read(run_dir)    a Provenance, None if there is no file; Damaged if it is not right
PROVENANCE.write(run_dir, value)
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from daas_dist.documents import strict
from daas_dist.documents.checked import checked
from daas_dist.documents.files import Damaged, read
from daas_dist.documents.writing import write_json

T = TypeVar("T")


def read_object(path: Path, remedy: str) -> dict[str, Any] | None:
    """The JSON object of a file, None if there is no file. Damaged if it is another thing."""
    data = read(path, remedy)
    return None if data is None else _object(data, path, remedy)


def _object(data: bytes, path: Path, remedy: str) -> dict[str, Any]:
    try:
        value = strict.parse(data)
    except ValueError as error:
        raise Damaged(path, f"is not JSON ({error})", remedy) from error
    if not isinstance(value, dict):
        raise Damaged(path, f"is {value!a:.60}, expected a table", remedy)
    return value


def parsed(kind: type[T], value: Mapping[str, Any], path: Path, remedy: str) -> T:
    """The object as a `kind`. Damaged says which key is not right."""
    try:
        return checked(kind, value)
    except ValueError as error:
        raise Damaged(path, str(error), remedy) from error


@dataclass(frozen=True)
class Document(Generic[T]):
    """One kind of document: what it holds, what its file is called, what mends a damaged one."""

    kind: type[T]
    file: str
    remedy: str

    def read(self, folder: Path) -> T | None:
        return self.read_file(folder / self.file)

    def read_file(self, path: Path) -> T | None:
        value = read_object(path, self.remedy)
        return None if value is None else parsed(self.kind, value, path, self.remedy)

    def parse(self, data: bytes, path: Path) -> T:
        """Return what the bytes of a file say."""
        return parsed(self.kind, _object(data, path, self.remedy), path, self.remedy)

    def write(self, folder: Path, value: T) -> None:
        assert is_dataclass(value)
        write_json(folder / self.file, asdict(cast(Any, value)))
