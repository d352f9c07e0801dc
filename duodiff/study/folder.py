"""A study's folder, results/<experiment>/train<seed>: its models, and how its samples were made (no torch)."""

from pathlib import Path

from duodiff.running.files import read_json
from duodiff.settings import Setting
from duodiff.study.grid import samplers


class Study:
    """The study in `folder`, as the manifests of its sample stores describe it.

    `cells` are these manifests. They agree on `experiment`, `train_seed`, `protocol`, `conventions` (schedule,
    time_input, class_order), `batch` (the compute batch) and `precision`. Raises FileNotFoundError if there is no
    sample store.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        paths = sorted(folder.glob("samples/*/*/*/*/manifest.json"), key=_in_order)
        if not paths:
            raise FileNotFoundError(
                f"{folder}: found no samples; accepted: the folder results/<experiment>/train<seed> of a run that has"
                " sampled at least one cell of its grid"
            )
        self.cells = [read_json(path) for path in paths]
        first = self.cells[0]
        self.protocol, self.batch = first["protocol"], first["compute_batch"]
        self.precision = first["dtype"]
        self.compiled = any(cell["compiled"] for cell in self.cells)  # cells of AdaDiff never are
        self.experiment, self.train_seed = first["experiment"], first["train_seed"]
        self.conventions = {k: first[k] for k in ("schedule", "time_input", "class_order")}

    def checkpoint(self, role: str) -> Path:
        """Manifest of the checkpoint in `role` (full, shallow, heads).

        It is in this folder, or in a folder beside it: the samples name their checkpoints by hash. Raises
        FileNotFoundError if there is none.
        """
        own = self.folder / role / "manifest.json"
        if own.exists():
            return own
        used = {cell["checkpoint_sha256"].get(role) for cell in self.cells}
        results = self.folder.resolve().parents[1]
        trained = sorted(results.glob(f"*/train*/{role}/manifest.json"))
        for path in [*trained, *sorted(results.glob("*/pretrained/manifest.json"))]:
            if read_json(path)["weights_sha256"] in used:
                return path
        raise FileNotFoundError(
            f"{own}: there is no {role} checkpoint, nor one below {results} that the samples were made with"
        )

    def models(self, setting: Setting) -> dict[str, Path]:
        """The files that a setting needs, by role, as `sampling.models.Models` takes them.

        Raises FileNotFoundError if one is missing.
        """
        files = {role: self.checkpoint(role) for role in setting.networks}
        if setting.is_quantile:
            quantiles = self.folder / "profile/quantiles.json"
            if not quantiles.exists():
                raise FileNotFoundError(
                    f"{quantiles} is missing; a theta that is a number needs none"
                )
            files["quantiles"] = quantiles
        return files

    def sampler(self, name: str, steps: int | None, eta: float | None) -> dict:
        """The options of the sampler `name`, with `steps` and `eta` if they are given.

        The other options are those of the study's samples, or the schema's example if no sample is by this sampler.
        Raises ValueError for an unknown sampler, and for an eta that the sampler does not have or that is not from 0
        to 1.
        """
        if name not in samplers():
            raise ValueError(f"sampler: found {name!r}; accepted: {', '.join(samplers())}")
        if eta is not None and not ("eta" in samplers()[name]["properties"] and 0 <= eta <= 1):
            with_eta = [n for n, schema in samplers().items() if "eta" in schema["properties"]]
            accepted = f"0 to 1 with --sampler {' or '.join(with_eta)}"
            raise ValueError(f"eta: found {eta} for {name}; accepted: {accepted}")
        guidance = {k: v for k, v in self.cells[0]["sampler"].items() if k == "guidance"}
        grid = [cell["sampler"] for cell in self.cells if cell["sampler"]["name"] == name]
        options = grid[0] if grid else {"name": name} | samplers()[name]["examples"][0] | guidance
        given = {k: v for k, v in (("steps", steps), ("eta", eta)) if v is not None}
        return options | given

    def autoencoder(self) -> dict | None:
        """The configuration's section of the samples' autoencoder, with an absolute path; None for images.

        Raises FileNotFoundError if the autoencoder's folder is gone. An autoencoder in a single file raises too: the
        samples record neither its architecture nor its scale.
        """
        made = self.cells[0].get("autoencoder")
        if made is None:
            return None
        section = made | {"sha256": made["weights_sha256"]}
        if "hub" in made:
            return section
        project = self.folder.resolve().parents[2]
        for path in (project / made["path"], project / "data" / made["path"]):
            if path.is_dir():
                return section | {"path": str(path)}
        raise FileNotFoundError(
            f"{made['path']}: found no folder with the autoencoder of {self.folder}"
        )

    def describe(self) -> str:
        """A text: the checkpoints with their paths, and the seeds of the samples by sampler and setting."""
        about = f"{self.protocol} protocol, {self.conventions['schedule']} schedule"
        lines = [f"{self.folder}: {self.experiment}, {about}, compute batch {self.batch}"]
        for role in ("full", "shallow", "heads"):
            try:
                path = self.checkpoint(role)
            except FileNotFoundError:
                continue
            manifest = read_json(path)
            blocks = f"{manifest['architecture']['depth']} blocks" if role != "heads" else "AdaDiff"
            lines.append(f"  {role:8s} {blocks:9s} {manifest['weights_sha256'][:12]}  {path}")
        seeds: dict[str, dict[str, list[int]]] = {}
        for cell in self.cells:
            sampler = ", ".join(f"{key} {value}" for key, value in cell["sampler"].items())
            by_setting = seeds.setdefault(sampler.removeprefix("name "), {})
            by_setting.setdefault(str(Setting.of_record(cell["parameters"])), []).append(
                cell["seed"]
            )
        for sampler, by_setting in seeds.items():
            lines.append(f"  samples of {sampler}")
            lines += [f"    {s:12s} seed {', '.join(map(str, n))}" for s, n in by_setting.items()]
        return "\n".join(lines)


def _in_order(path: Path) -> tuple:
    """The key that sorts sample stores: sampler, method, number of the setting, seed."""
    sampler, method, setting, seed = path.parts[-5:-1]
    return sampler, method, Setting.parse(setting).number, int(seed.removeprefix("seed"))
