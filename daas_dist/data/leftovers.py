"""What lies beside pictures and is none: the one place that says what is left out, and under which
name it is counted. Folders that are searched and shards that are built ask it alike.

Everything else in a class is taken for a picture. What then cannot be read counts as a bad file,
so no picture is lost because of its name.
"""

from pathlib import PurePath


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SYSTEM, HIDDEN, BESIDE = "left by a system", "hidden", "sidecars or documents"
"""Why a file or a folder is left out."""

ARCHIVES = "archives, not unpacked"
"""Beside the class folders; one may be a class. In a class an archive is a bad file."""

LINKED_TWICE = "links to folders that are read already"

SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "#recycle", "#snapshot"),
        *("__macosx", "network trash folder", "temporary items", "the volume settings folder"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),
        *("lost+found", "__pycache__"),
        *(".appledouble", ".ds_store", ".ipynb_checkpoints", ".git", ".svn", ".snapshot", ".zfs"),
        *(
            ".trashes",
            ".fseventsd",
            ".spotlight-v100",
            ".temporaryitems",
            ".documentrevisions-v100",
        ),
        *(".@__thumb", ".thumbnails", ".thumbcache", ".picasaoriginals"),
    }
)
"""Of Synology, QNAP, macOS, Windows, Linux, Jupyter and others, in small letters."""

SYSTEM_FILES = frozenset(
    {
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("autorun.inf", "picasa.ini", "icon\r", "zbthumbnail.info", "pspbrwse.jbf"),
        *(".ds_store", ".localized", ".directory", ".nomedia", ".picasa.ini", ".bridgesort"),
        *(".bridgecache", ".bridgecachet", ".gitignore", ".gitattributes", ".gitkeep", ".keep"),
    }
)
SYSTEM_STARTS = ("._", ".trash-", ".nfs", ".fuse_hidden", ".smbdelete")
"""AppleDouble's companions, rubbish bins, files that are open while they are deleted."""
SYSTEM_ENDS = ("@synoeastream", "@synoresource", ":zone.identifier")

BESIDE_ENDINGS = _names(
    "xmp aae thm pp3 dop on1 nksc cos json jsonl xml yaml yml toml txt csv tsv md rst html htm css "
    "js ini cfg conf log nfo url lnk webloc names lst list md5 sha1 sha256 sfv crc py ipynb sh bat "
    "cff bib tex"
)
"""Of cameras, of programs that develop and label pictures, of documents, checksums, scripts."""

BESIDE_NAMES = _names(
    "readme license licence copying notice authors changelog contributors citation credits "
    "attribution makefile md5sums sha1sums sha256sums checksums classes labels"
)
"""Without an ending."""


ARCHIVE_ENDINGS = _names("zip tar tgz tbz txz gz bz2 xz zst 7z rar")


def is_archive_name(name: str) -> bool:
    return PurePath(name).suffix[1:].lower() in ARCHIVE_ENDINGS


def why_left_out(name: str, is_folder: bool) -> str | None:
    """Return why a file or a folder of this name is no picture and no class; None if it may be."""
    lower = name.lower()
    if lower in (SYSTEM_FOLDERS if is_folder else SYSTEM_FILES):
        return SYSTEM
    if lower.startswith(SYSTEM_STARTS) or lower.endswith(SYSTEM_ENDS):
        return SYSTEM
    if name.startswith("."):
        return HIDDEN
    if is_folder:
        return None
    path = PurePath(lower)
    beside = path.suffix[1:] in BESIDE_ENDINGS or (not path.suffix and path.name in BESIDE_NAMES)
    return BESIDE if beside else None
