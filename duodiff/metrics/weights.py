"""Published weights of feature extractors, downloaded and verified."""

from pathlib import Path

from duodiff.running.download import fetch, refuse_stand_in
from duodiff.running.files import sha256, write_json
from duodiff.spaces import WEIGHTS


def fetch_weights(name: str, path: Path, receipt: Path) -> dict:
    """The receipt (file, sha256) of the weights `name` (a key of WEIGHTS) at `path`, also written to `receipt`.

    The weights are downloaded if the file is absent. Raises ValueError if the file holds other weights or stands in for
    them (a web page, a git-lfs pointer), OSError if it is absent and there is no network.
    """
    known = WEIGHTS[name]
    if not path.exists():
        fetch(known.url, path, known.sha256)
    refuse_stand_in(path)
    digest = sha256(path)
    if digest != known.sha256:
        raise ValueError(
            f"extractors.{name}: {path} has sha256 {digest}, expected {known.sha256};"
            f" the metrics are defined for these weights only, which are at {known.url}"
        )
    content = {"file": path.name, "sha256": digest}
    write_json(receipt, content)
    return content
