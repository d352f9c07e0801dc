from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.data.store import ImageStore
    from duodiff.metrics import classifier


def train_classifier(data: Path, steps: int, batch: int, device: str, out: Path) -> str:
    """Train the small classifier whose features measure distances. Writes its weights to --out."""
    store = ImageStore(data)
    model = classifier.train_classifier(
        *store.split("train"), store.num_classes, steps=steps, batch=batch, seed=0, device=device
    )
    classifier.save(out, model)
    accuracy = classifier.accuracy(model, *store.split("held_out"))
    return f"held-out accuracy {accuracy:.3f}"


if __name__ == "__main__":
    job.run(train_classifier)
