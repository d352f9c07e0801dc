# What a job does: its command line, the identity of its result, and whether a finished one is accepted.
import json
import os
import shlex
import sys

from snakemake.io import apply_wildcards

from duodiff import identity
from duodiff.running import receipts
from duodiff.running.files import require_writable

# With one of these options nothing is run, and finished results are not compared.
REPORTING = any(a.startswith(("--unlock", "--report", "--touch")) for a in sys.argv)

COMMAND = "{params.command} --log {log}"
"""The shell command of every rule. It is constant: Snakemake would run a rule again whose text has changed."""

# With conda or a container the interpreter is that of the environment, else the one that runs Snakemake.
DEPLOYED = {str(method) for method in workflow.deployment_settings.deployment_method}
PYTHON = "python" if DEPLOYED & {"conda", "apptainer"} else sys.executable
if MAIN and "apptainer" in DEPLOYED and "container" not in config:
    raise WorkflowError(
        "container: found none; accepted: the image that --software-deployment-method apptainer runs jobs in"
        " (docs/cluster.md)"
    )
if MAIN and workflow.is_main_process and not REPORTING:
    try:
        for folder in ("results", "logs", "benchmarks"):
            require_writable(Path(folder))
    except OSError as error:
        raise WorkflowError(str(error))
STALE = set()  # what was said of jobs that are run again


def own(path):
    """A file of this workflow: below the working directory by its short path, else by its whole path."""
    return path if ROOT == Path.cwd() else str(ROOT / path)


def as_option(value):
    """The words of one option's value on a command line: JSON for mappings, lists of lists and truth values."""
    if (
        isinstance(value, (dict, bool))
        or isinstance(value, list)
        and any(isinstance(item, (list, dict)) for item in value)
    ):
        return [json.dumps(value)]
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return [str(value)]
    return [str(item) for item in value]


def command_line(words, options, python=PYTHON):
    """The shell's line for an interpreter with these words and options; an option whose value is None is left out."""
    words = [python, *words]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *as_option(value)]
    path = shlex.quote(str(ROOT))
    return f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}; exec {shlex.join(words)}"


LISTING = []  # the rules whose inputs are being listed


def listed_inputs(rule, wc):
    """The inputs of a rule's job, as the configuration has them now."""
    LISTING.append(rule)
    try:
        found = getattr(rules, rule).rule.expand_input(dict(wc.items()))[0]
    finally:
        LISTING.pop()
    return [str(path) for path in found]


def beside(path):
    """The arrays or weights that a manifest describes, and that its readers read. None for another file, and for a shard.

    The rule of a shard's readers names them itself.
    """
    folder, name = os.path.split(path)
    if name != "manifest.json" or "/shards/" in folder:
        return []
    if "/samples/" in folder:
        names = [f"{array}.npy" for array in ARRAYS]
    elif os.path.basename(folder) == "latents":
        names = ["moments.npy", "labels.npy"]
    elif folder.startswith("results/data/"):
        names = ["images.npy", "labels.npy"]
    else:
        names = ["model.safetensors"]
    return [f"{folder}/{name}" for name in names]


def read_beside(rule, described=lambda wc: []):
    """An input function: the arrays and weights beside the manifests that a rule's job reads.

    They may have been removed to save disk. As inputs they are made again where a job needs them, and only there. Of
    `described(wc)` the job reads the manifests alone.
    """

    def files(wc):
        if LISTING or REPORTING:
            return []
        manifests = {*listed_inputs(rule, wc)} - {*described(wc)}
        return [file for path in sorted(manifests) for file in beside(path)]

    return files


class Work:
    """What a rule's script is to do: its options, its files, and the identity of its result.

    `decides(wc)` are the options that decide the result, together with the code of the script and the inputs.
    `how(wc)` are options that say how the work is run. `paths(wc, input, output)` are options that name files. An
    option whose value is None is left out. `own(wc)` are options that name files of this workflow, which count by their
    content. `workers` names the option that takes the threads of the rule; `processes` is the number of GPUs that the
    script trains on, a process each. With `kept` a finished result goes into the store, but no shard does.
    `watched(wc)` are the files from outside that the job reads, by name. `named(wc)` are the inputs whose very set
    counts. `like` is another Work, whose result this one's is. `python` is the interpreter. `described(wc)` are
    manifests of which the job reads nothing else (`read_beside`).
    """

    def __init__(
        self,
        script,
        paths,
        decides=lambda wc: {},
        how=lambda wc: {},
        own=lambda wc: {},
        workers=None,
        processes=None,
        kept=False,
        watched=lambda wc: {},
        named=lambda wc: [],
        like=None,
        python=PYTHON,
        described=lambda wc: [],
    ):
        self.script, self.paths, self.decides, self.how = script, paths, decides, how
        self.own, self.workers, self.processes = own, workers, processes
        self.kept, self.watched, self.named, self.like = kept, watched, named, like
        self.python = python
        self.described = described

    @property
    def function(self):
        """Where the code of the work begins."""
        return f"workflow_scripts.{self.script}", self.script

    def decisive(self, wc):
        """Everything that decides the result but code and inputs."""
        contents = {
            name: receipts.content(ROOT / path) for name, path in self.own(wc).items()
        }
        names = self.named(wc)
        return self.decides(wc) | contents | ({"of": names} if names else {})

    def identity(self, wc):
        """The digest of what decides the result but the inputs: the one tracked parameter of the rule."""
        decided = self.like or self
        return identity.of(decided.function, decided.decisive(wc))

    def plan(self, wc, input, output):
        """What the job is told of its place in the workflow.

        It computes its identity itself: the code may have been edited since this run began.
        """
        decided = self.like or self
        return {
            "inputs": [str(path) for path in input],
            "outputs": [str(path) for path in output],
            "kept": self.kept and "shard" not in wc.keys(),
            "watched": {name: str(path) for name, path in self.watched(wc).items()},
            "work": decided.function,
            "options": decided.decisive(wc),
        }

    def command(self, wc, input, output, threads):
        """The command line. Snakemake does not track it, since it is a function of input and output."""
        words = []
        if self.processes is not None:
            words += ["-m", "duodiff.running.launch", str(self.processes)]
        words.append(own(f"workflow_scripts/{self.script}.py"))
        options = self.paths(wc, input, output) | self.decides(wc) | self.how(wc)
        options |= {name: own(path) for name, path in self.own(wc).items()}
        options |= {self.workers: threads} if self.workers else {}
        options["plan"] = self.plan(wc, input, output)
        return command_line(words, options, self.python)

    def accepted(self, rule):
        """An input function: it has the job run again if its outputs are not those asked for.

        Snakemake compares parameters only where it has run the job itself. A receipt tells it of results from anywhere.
        The files that it names are those beside the job's manifests (`read_beside`).
        """
        read = read_beside(rule, self.described)

        def check(wc):
            if workflow.is_main_process and not (REPORTING or LISTING):
                outputs = [
                    apply_wildcards(str(path), wc)
                    for path in getattr(rules, rule).output
                ]
                # some of them may have been removed to save disk
                if any(map(os.path.exists, outputs)):
                    self._check(rule, wc, outputs)
            return read(wc)

        return check

    def _check(self, rule, wc, outputs):
        try:
            receipt = receipts.read(receipts.receipt_of(outputs[0]))
        except FileNotFoundError:
            reasons = ["there is no receipt of what made it"]
        except ValueError as error:
            reasons = [str(error)]
        else:
            reasons = receipts.changed_inputs(receipt)
            reasons += receipts.other_inputs(receipt, listed_inputs(rule, wc))
            if receipt["identity"] != self.identity(wc):
                decided = self.like or self
                named = receipts.differences(
                    receipt, decided.function, decided.decisive(wc)
                )
                reasons += [*named] or ["what decides it has changed"]
        if not reasons:
            receipts.set_times(receipt)
            return
        workflow._dag.forcefiles.update(outputs)
        if outputs[0] not in STALE:
            STALE.add(outputs[0])
            shown = "; ".join(reasons[:3]) + (
                f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            )
            print(f"{rule}: {outputs[0]} is made again: {shown}", file=sys.stderr)
