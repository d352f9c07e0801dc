from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.metrics.weights import take_classifier


def fetch_classifier(weights: Path, description: Path, data: Path, out: Path) -> str:
    """Copy the shipped classifier --weights to --out, if it was trained on the training images of --data.

    --description is the JSON file beside the weights, which says what they are and what they were trained on.
    """
    described = take_classifier(weights, description, data, out)
    accuracy, sha256 = described["held_out_accuracy"], described["weights_sha256"]
    return f"{weights.name}: sha256 {sha256[:12]}, held-out accuracy {accuracy:.3f}"


if __name__ == "__main__":
    job.run(fetch_classifier)
