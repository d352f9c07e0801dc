"""Published weights of feature extractors, in place and verified."""

from pathlib import Path

from duodiff.running.download import fetch
from duodiff.running.files import sha256, write_json
from duodiff.spaces import WEIGHTS


def fetch_weights(name: str, path: Path, receipt: Path) -> dict:
    """The receipt (file, sha256) of the weights `name` (a key of WEIGHTS) at `path`, downloaded if absent;
    also written to `receipt`.

    Raises ValueError if they are other weights, OSError if they are absent and there is no network.
    """
    known = WEIGHTS[name]
    if not path.exists():
        fetch(known.url, path, known.sha256)
    found = sha256(path)
    if found != known.sha256:
        raise ValueError(
            f"extractors.{name}: {path} has sha256 {found}, expected {known.sha256};"
            f" the metrics are defined on those weights alone, found at {known.url}"
        )
    content = {"file": path.name, "sha256": found}
    write_json(receipt, content)
    return content
