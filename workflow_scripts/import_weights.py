from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.running.download import fetch, require
    from duodiff.training.pretrained import convert

PAGE = "https://github.com/baofff/U-ViT"


def import_weights(
    weights: dict,
    data: Path,
    architecture: dict,
    conventions: dict,
    null_class: bool,
    out: Path,
) -> str:
    """Make a checkpoint of published U-ViT weights. Writes model.safetensors beside the manifest --out.

    --weights is JSON. It has path (of the file, relative to --data) and sha256 (null: not verified). It may have url,
    from which a missing file is downloaded, or page, which the error for a missing file names. --architecture is the
    JSON of the network's section in the configuration. --conventions is JSON of schedule, time_input and class_order.
    """
    path, pinned = data / weights["path"], weights["sha256"]
    if weights.get("url") and not path.exists():
        fetch(weights["url"], path, pinned)
    require(path, weights.get("page") or PAGE)
    source = convert(path, pinned, architecture, conventions, null_class, out=out).source or {}
    return f"{path}: sha256 {source['sha256']}{'' if source['verified'] else ' (not verified)'}"


if __name__ == "__main__":
    job.run(import_weights)
