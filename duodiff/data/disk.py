"""A temporary database for what grows with the number of files: their names and places in an archive."""

import sqlite3


def database() -> sqlite3.Connection:
    """An empty database in a temporary file of its own, with a cache of half a MB. It vanishes with its owner."""
    connection = sqlite3.connect("")
    connection.execute("PRAGMA cache_size = -512")  # KiB; the default is 2 MB
    return connection
