"""A study's folder, results/<experiment>/train<seed>: its models, and how its samples were made (no torch)."""

from contextlib import suppress
from pathlib import Path

from duodiff.running.files import read_json
from duodiff.running.receipts import made_by
from duodiff.settings import Setting
from duodiff.study.grid import samplers


class Study:
    """The study in `folder`, as the manifests of its sample stores describe it.

    `cells` are these manifests. They agree on `experiment`, `train_seed`, `protocol`, `conventions` (schedule,
    time_input, class_order), `batch` (the compute batch) and `precision`. Raises FileNotFoundError if there is no
    such folder or no sample store in it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        if not folder.is_dir():
            here = ", ".join(sorted(map(str, Path("results").glob("*/train*")))) or "none"
            raise FileNotFoundError(
                f"{folder}: found no such folder; accepted: the folder results/<experiment>/train<seed> of a run;"
                f" found here: {here}"
            )
        paths = sorted(folder.glob("samples/**/seed*/manifest.json"), key=_in_order)
        if not paths:
            raise FileNotFoundError(
                f"{folder}: found no samples; accepted: the folder results/<experiment>/train<seed> of a run that has"
                " sampled at least one cell of its grid"
            )
        self.paths, self.cells = paths, [read_json(path) for path in paths]
        first = self.cells[0]
        self.protocol, self.batch = first["protocol"], first["compute_batch"]
        self.precision = first["dtype"]
        self.compiled = any(cell["compiled"] for cell in self.cells)  # cells of AdaDiff never are
        self.experiment, self.train_seed = first["experiment"], first["train_seed"]
        self.conventions = {k: first[k] for k in ("schedule", "time_input", "class_order")}

    def manifest(self, role: str) -> Path:
        """Manifest of the checkpoint in `role` (full, shallow, heads, or the name of a further network).

        It is in this folder, or in a folder beside it: the samples name their checkpoints by hash. One whose weights
        are there comes first. Raises FileNotFoundError if there is none.
        """
        own = self.folder / role / "manifest.json"
        found = [own] if own.exists() else []
        if found and _weights(own).exists():
            return own
        used = {cell["checkpoint_sha256"].get(role) for cell in self.cells}
        wanted = {read_json(own)["weights_sha256"]} if found else used
        results = self.folder.resolve().parents[1]
        trained = sorted(results.glob(f"*/train*/{role}/manifest.json"))
        for path in [*trained, *sorted(results.glob("*/pretrained/manifest.json"))]:
            if read_json(path)["weights_sha256"] in wanted:
                found.append(path)
        if not found:
            raise FileNotFoundError(
                f"{own}: there is no {role} checkpoint, nor one below {results} that the samples were made with"
            )
        return next((path for path in found if _weights(path).exists()), found[0])

    def checkpoint(self, role: str) -> Path:
        """As `manifest`. Raises FileNotFoundError, with the command that makes them, if the weights are not there."""
        weights = _weights(manifest := self.manifest(role))
        if not weights.exists():
            raise FileNotFoundError(f"{weights}: found no such file{made_by(weights)}")
        return manifest

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that the checkpoints of the study may have: full, shallow, heads, and those its samples name."""
        named = {role for cell in self.cells for role in cell["checkpoint_sha256"]}
        return (*_ROLES, *sorted(named - {*_ROLES}))

    def schedule(self, name: str, sampler: str) -> Setting:
        """The schedule of this name, as the study's samples by this sampler, or else by another one, have it.

        Raises ValueError for a name that no sample has.
        """
        found: dict[str, dict[str, dict]] = {}
        for cell in self.cells:
            if "schedule" in (parameters := cell["parameters"]):
                by_sampler = found.setdefault(parameters["schedule"], {})
                by_sampler.setdefault(cell["sampler"]["name"], parameters)
        if name not in found:
            known = ", ".join(found) or "none; the samples have none"
            raise ValueError(f"schedule: found {name!r}; accepted: {known}")
        first = next(iter(found[name].values()))
        return Setting.of_record(found[name].get(sampler, first))

    def models(self, setting: Setting) -> dict[str, Path]:
        """The files that a setting needs, by role, as `sampling.models.Models` takes them.

        Raises FileNotFoundError if one is missing.
        """
        files = {role: self.checkpoint(role) for role in setting.networks}
        if setting.is_quantile:
            quantiles = self.folder / "profile/quantiles.json"
            if not quantiles.exists():
                raise FileNotFoundError(
                    f"{quantiles} is missing; a theta that is a number needs none{made_by(quantiles)}"
                )
            files["quantiles"] = quantiles
        return files

    def sampler(
        self, name: str, steps: int | None, eta: float | None, guidance: float | None = None
    ) -> dict:
        """The options of the sampler `name`, with `steps`, `eta` and `guidance` if they are given.

        The other options are those of the study's samples, or the schema's example if no sample is by this sampler.
        Raises ValueError for an unknown sampler, for an eta that the sampler does not have or that is not from 0 to 1,
        and for a negative guidance.
        """
        if name not in samplers():
            raise ValueError(f"sampler: found {name!r}; accepted: {', '.join(samplers())}")
        if eta is not None and not ("eta" in samplers()[name]["properties"] and 0 <= eta <= 1):
            with_eta = [n for n, schema in samplers().items() if "eta" in schema["properties"]]
            accepted = f"0 to 1 with --sampler {' or '.join(with_eta)}"
            raise ValueError(f"eta: found {eta} for {name}; accepted: {accepted}")
        if guidance is not None and not guidance >= 0:
            raise ValueError(f"guidance: found {guidance}; accepted: 0 (none) or more")
        own = {k: v for k, v in self.cells[0]["sampler"].items() if k == "guidance"}
        grid = [cell["sampler"] for cell in self.cells if cell["sampler"]["name"] == name]
        options = grid[0] if grid else {"name": name} | samplers()[name]["examples"][0] | own
        given = {"steps": steps, "eta": eta, "guidance": guidance}
        chosen = options | {key: value for key, value in given.items() if value is not None}
        return {k: v for k, v in chosen.items() if k != "guidance" or guidance != 0}

    def labels(self, named: list[str], manifest: Path) -> list[int]:
        """The labels of classes, each named by its number or its name, for the checkpoint at `manifest`.

        Raises ValueError for a class that the network does not know.
        """
        if not named:
            raise ValueError("classes: found none; accepted: one or more")
        described = read_json(manifest)
        count = described["architecture"]["num_classes"] - described["null_class"]
        if count < 1:
            raise ValueError("classes: found some for networks without classes; accepted: none")
        names = self._class_names(described["dataset_sha256"])
        labels = {str(label): label for label in range(count)}
        labels |= {name: label for label, name in enumerate(names)}  # a name may be a number, too
        if unknown := [name for name in named if name not in labels]:
            by_name = names and names != [str(label) for label in range(count)]
            accepted = f"0 to {count - 1}" + (f", or names such as {names[0]}" if by_name else "")
            raise ValueError(f"classes: found {', '.join(unknown)}; accepted: {accepted}")
        return [labels[name] for name in named]

    def _class_names(self, trained_on: str | None) -> list[str]:
        """The names of the classes, by label; empty where the packed data are not below the same results."""
        data = self.folder.resolve().parents[1] / "data"
        for path in sorted([*data.glob("*/manifest.json"), *data.glob("*/latents/manifest.json")]):
            described = read_json(path)
            if trained_on in (described.get("images_sha256"), described.get("moments_sha256")):
                return described.get("class_names") or []
        return []

    def autoencoder(self) -> dict | None:
        """The configuration's section of the samples' autoencoder, with an absolute path; None for images.

        Raises FileNotFoundError if the autoencoder's folder is gone, or files of one that was trained here. An
        autoencoder in a single file raises too: the samples record neither its architecture nor its scale.
        """
        made = self.cells[0].get("autoencoder")
        if made is None:
            return None
        section = made | {"sha256": made["weights_sha256"]}
        if "hub" in made:
            return section
        project = self.folder.resolve().parents[2]
        for file in self._trained_autoencoder():
            if not file.exists():
                raise FileNotFoundError(f"{file}: found no such file{made_by(file)}")
        for path in (project / made["path"], project / "data" / made["path"]):
            if path.is_dir():
                return section | {"path": str(path)}
        raise FileNotFoundError(
            f"{made['path']}: found no folder with the autoencoder of {self.folder}"
        )

    def describe(self) -> str:
        """A text: the checkpoints with their paths, and the seeds of the samples by sampler and setting.

        Weights and arrays that are missing are named, with the command that makes them again.
        """
        about = f"{self.protocol} protocol, {self.conventions['schedule']} schedule"
        lines = [f"{self.folder}: {self.experiment}, {about}, compute batch {self.batch}"]
        for role in self.roles:
            try:
                path = self.manifest(role)
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
        missing = self._missing()
        lines += [f"  missing: {path}{made_by(path)}" for path in missing[:_MOST_NAMED]]
        if len(missing) > _MOST_NAMED:
            lines.append(f"  and {len(missing) - _MOST_NAMED} more files are missing")
        return "\n".join(lines)

    def _missing(self) -> list[Path]:
        """The weights and arrays whose manifests are there, and they are not."""
        checkpoints = []
        for role in self.roles:
            with suppress(FileNotFoundError):
                checkpoints.append(self.manifest(role))
        files = [_weights(path) for path in checkpoints]
        files += self._trained_autoencoder()
        files += [path.with_name(name) for path in self.paths for name in _ARRAYS]
        return [path for path in files if not path.exists()]

    def _trained_autoencoder(self) -> list[Path]:
        """The files of an autoencoder that the workflow has trained; none for another, and for images."""
        path = (self.cells[0].get("autoencoder") or {}).get("path", "")
        folder = self.folder.resolve().parents[2] / path
        return [folder / name for name in _CODEC] if path.startswith("results/") else []


_CODEC = ("config.json", "diffusion_pytorch_model.safetensors")  # as diffusers names them
_ARRAYS = ("images.npy", "labels.npy", "blocks_run.npy")
_ROLES = ("full", "shallow", "heads")  # that every study may have
_MOST_NAMED = 5


def _weights(manifest: Path) -> Path:
    return manifest.with_name("model.safetensors")


def _in_order(path: Path) -> tuple:
    """The key that sorts sample stores: sampler (its own steps first), method, setting, seed."""
    *_, sampler, method, setting, seed, _ = path.parts
    steps = sampler.startswith("steps=")  # in a folder of the sampler's
    name = path.parts[-6] if steps else sampler
    fewer = sampler if steps else ""
    return name, fewer, method, Setting.parse(setting).order, int(seed.removeprefix("seed"))
