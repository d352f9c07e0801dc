"""Inception-v3's weights (2015-12-05), the only feature space in which a Frechet distance is called FID."""

from pathlib import Path

from duodiff.download import fetch
from duodiff.files import sha256, write_json

URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def fetch_weights(path: Path, receipt: Path) -> dict:
    """The receipt (file, sha256) of the weights at `path`, downloaded if absent; also written to `receipt`.

    Raises ValueError if they are other weights, OSError if they are absent and there is no network.
    """
    if not path.exists():
        fetch(URL, path, SHA256)
    found = sha256(path)
    if found != SHA256:
        raise ValueError(
            f"metric.inception: {path} has sha256 {found}, expected {SHA256};"
            " FID is defined on those weights alone"
        )
    content = {"file": path.name, "sha256": found}
    write_json(receipt, content)
    return content
