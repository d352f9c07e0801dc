from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.data.store import ImageStore
    from duodiff.identity import code_digest
    from duodiff.metrics import classifier
    from duodiff.running import provenance
    from duodiff.running.files import sha256, write_json


def train_classifier(data: Path, steps: int, batch: int, device: str, out: Path) -> str:
    """Train the small classifier whose features measure distances. Writes its weights to --out.

    A JSON file beside them says what they are: training, data, accuracy, sha256, device and libraries. A classifier to
    be shipped is trained by the same script (`make classifiers`).
    """
    store = ImageStore(data)
    model = classifier.train_classifier(
        *store.split("train"), store.num_classes, steps=steps, batch=batch, seed=0, device=device
    )
    classifier.save(out, model)
    held_out = store.split("held_out")
    accuracy = classifier.accuracy(classifier.load(out).to(device), *held_out)
    description = {
        "weights_sha256": sha256(out),
        "training": {"steps": steps, "batch": batch, "seed": 0},
        "data": store.training_data,
        "held_out_accuracy": accuracy,
        "held_out_images": len(held_out[0]),
        "made": provenance.made(code_digest(classifier.train_classifier), device),
    }
    write_json(out.with_suffix(".json"), description)
    return f"held-out accuracy {accuracy:.3f}"


if __name__ == "__main__":
    job.run(train_classifier)
