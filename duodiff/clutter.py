"""Names of files and folders that a system, a NAS or an editor leaves in a folder, and no person means to be there."""

_KNOWN = (
    *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", ".@__thumb"),  # a NAS
    *("$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "ehthumbs.db", "desktop.ini"),
    *("__MACOSX", ".DS_Store", ".AppleDouble", ".Trashes", "Network Trash Folder", "Icon\r"),
    *("lost+found", ".git", ".ipynb_checkpoints"),
)
_BY_NAME = {name.lower(): name for name in _KNOWN}


def clutter(path: str) -> str | None:
    """The first known name among the parts of `path`, whatever its case; None if there is none.

    Other hidden parts are `.Trash*`, `._*` (of a Mac) or `.*`.
    """
    return next(filter(None, map(_known, path.split("/"))), None)


def _known(part: str) -> str | None:
    known = _BY_NAME.get(part.lower())
    if known is not None or not part.startswith("."):
        return known
    return next(start for start in (".Trash", "._", ".") if part.startswith(start)) + "*"
