"""Who notices that a folder of shards is damaged, and what each of them says."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spoil import COUNT, SAMPLE, SHARD

from daas_dist.data import open_shards
from daas_dist.data.manifest import DataError
from daas_dist.data.sharding import verify

EVERYONE = "open read quick full decode"
VERIFY = "quick full decode"
CHANGED = "its bytes have changed since they were packed"


def everyone(root: Path) -> dict[str, str]:
    """What each of them says of a folder; nothing if nothing is wrong."""

    def saying(task: Callable[[], object]) -> str:
        try:
            task()
        except (DataError, OSError) as error:
            return str(error)
        return ""

    def read() -> None:
        images = open_shards(root, size=8, channels=3, locate=root.joinpath)
        wrong = []
        for row in range(len(images)):
            try:
                images.folder.read(row, images.reading)
            except DataError as error:
                wrong.append(str(error))
        images.reading.close()
        if wrong:
            raise DataError("\n".join(wrong))

    return {
        "open": saying(lambda: open_shards(root, size=8, channels=3)),
        "read": saying(read),
        "quick": "\n".join(verify.verify(root)),
        "full": "\n".join(verify.verify(root, full=True)),
        "decode": "\n".join(verify.verify(root, decode=COUNT)),
    }


def check(root: Path, notices: Mapping[str, Sequence[str]], name: str = "") -> None:
    """Who is named says all of the fragments and the folder, the others nothing."""
    told = everyone(root)
    expected: dict[str, list[str]] = {}
    for names, fragments in notices.items():
        for who in names.split():
            expected.setdefault(who, []).extend(fragments)
    silent = {who: said for who, said in told.items() if who not in expected and said}
    assert not silent
    for who, fragments in expected.items():
        for fragment in (str(root), *fragments):
            fragment = fragment.format(sample=f"{SHARD}: sample {SAMPLE} ({name})")
            assert fragment in told[who], (who, told[who])
