from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.autoencoder import load as load_autoencoder
    from duodiff.running import receipts
    from duodiff.running.files import sha256, write_json
    from duodiff.sampling.models import Models
    from duodiff.sampling.samples import write_samples
    from duodiff.settings import Schedules


def sample_cells(
    shared: dict,
    cells: dict,
    files: dict,
    work: list[str],
    device: str,
    out: Path,
    full: Path,
    shallow: Path,
    heads: Path | None = None,
    quantiles: Path | None = None,
    others: dict | None = None,
    chosen: Path | None = None,
    data: Path = Path("data"),
) -> str:
    """Generate all cells of one training in this process. Each is the store that its own sample_images job writes.

    A cell keeps its own identity: it has its receipt and its place in results/.store, and one that is there is taken.
    So every network is loaded and compiled once. --shared is the JSON of the options of sample_images.py that all cells
    have, --cells the list of each cell's own ones, and --files that of each cell's inputs and outputs. --work names
    sample_images, whose code is that of the cells' identity. --out is a JSON file: the hash of each cell's images.
    """
    loaded: dict[bool, Models] = {}
    further = {role: Path(path) for role, path in (others or {}).items()}
    autoencoder = shared.get("autoencoder")
    codec = load_autoencoder(autoencoder, data, device) if autoencoder else None

    def models(compiled: bool) -> Models:
        """The networks, compiled or not; loaded by the first cell that needs them so."""
        if compiled not in loaded:
            loaded[compiled] = Models(
                shared["conventions"],
                shared["protocol"],
                full=full,
                shallow=shallow,
                heads=heads,
                quantiles=quantiles,
                device=device,
                precision=shared["precision"],
                compiled=compiled,
                **further,
            )
        return loaded[compiled]

    made = 0
    for own, (inputs, outputs) in zip(cells, files, strict=True):
        options = shared | own
        plan = receipts.begun(work, options, inputs=inputs, outputs=outputs, kept=True)
        if receipts.take(plan):
            continue
        sampler = options["sampler"]
        schedules = Schedules(options.get("schedules") or {}, chosen)
        write_samples(
            Path(outputs[0]),
            models(compiled=options["compiled"] is not None),
            sampler=sampler,
            setting=schedules.setting(options["setting"], sampler["name"]),
            images=options["images"],
            batch=options["batch"],
            seed=int(options["seed"]),
            experiment=options["experiment"],
            train_seed=int(options["train_seed"]),
            autoencoder=codec,
        )
        receipts.write(plan)
        made += 1
    write_json(out, {outputs[0]: sha256(outputs[1]) for _, outputs in files})
    return f"{made} cells sampled, {len(cells) - made} found finished in {receipts.STORE}"


if __name__ == "__main__":
    job.run(sample_cells)
