# DuoDiff, end to end: see README.md for the commands, config/config.yaml for every option.
import subprocess
from pathlib import Path

import yaml
from snakemake.utils import min_version

min_version("9.0")

# The folder of this workflow's own files. `workflow.basedir` would be the folder of an outer workflow that imports it.
ROOT = Path(str(workflow.current_basedir))
MAIN = workflow.modifier.is_main_snakefile()  # it is no module of an outer workflow
DEFAULT = ROOT / "config/config.yaml"

if (
    not MAIN
    and workflow.modifier.modify_path("results/report.html") != "results/report.html"
):
    raise WorkflowError(
        "prefix and replace_prefix of a module: found one; accepted: none, since scripts name results/, logs/ and"
        " benchmarks/ of the working directory. Run another study with another --directory."
    )

# A configuration file given on the command line replaces the default instead of merging into it.
if "experiments" not in config and MAIN:

    # a file of this name in the working directory comes first
    configfile: str(Path("config/config.yaml") if Path("config/config.yaml").exists() else DEFAULT)

elif "experiments" not in config:
    config = yaml.safe_load(DEFAULT.read_text(encoding="utf-8")) | config


include: "rules/common.smk"


if "container" in config:

    # the image of every rule under `--software-deployment-method apptainer`
    container: config["container"]


include: "rules/work.smk"
include: "rules/outside.smk"
include: "rules/items.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/profile.smk"
include: "rules/sample.smk"
include: "rules/evaluate.smk"
include: "rules/export.smk"
include: "rules/paper.smk"


if MAIN:

    report: "report/workflow.rst"


rule all:
    default_target: True
    input:
        rules.make_page.output,
        rules.summarise.output,
        rules.make_table1.output,
        rules.make_table2.output,
        rules.make_table3.output,
        rules.make_table4.output,
        rules.make_metrics.output,
        rules.make_resources.output,
        rules.make_front.output,
        rules.make_claims.output,
        rules.plot_figure1.output if EXITS else [],
        rules.plot_figure2.output,
        rules.plot_figure3.output,
        rules.plot_figure4.output,
        rules.plot_figure5.output,
        rules.plot_figure6.output,
        rules.plot_figure7.output,
        rules.plot_relative.output,
        rules.plot_front.output,
        rules.plot_training.output if CURVES else [],
        rules.plot_denoising.output,
        studies(rules.plot_gallery.output.shown),
        rules.describe_run.output,
        rules.plot_extrapolation.output if studies("", extrapolates) else [],
    localrule: True


rule paper_figures:
    input:
        [f"{i.path}.csv" for i in ITEMS if i.path.startswith("results/paper/")],
    localrule: True


# The HTML report of the whole study, from anywhere: a workflow that imports this one asks for its file.
# It runs Snakemake, which the environment and the image of the other rules do not hold.
MAKE_REPORT = Work(
    "make_report",
    how=lambda wc: {"configuration": config},
    paths=lambda wc, input, output: {"out": output.page},
    python=sys.executable,
)


rule make_report:
    input:
        rules.all.input,
    output:
        page="results/report.html",
    log:
        "logs/make_report.log",
    benchmark:
        "benchmarks/make_report.tsv"
    localrule: True
    conda:
        "envs/environment.yaml"
    container:
        None
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        identity=MAKE_REPORT.identity,
        command=MAKE_REPORT.command,
    shell:
        COMMAND


onstart:
    if workflow.is_main_process and makes_items():
        remove_other_items()


onsuccess:
    # the report and the headline, when the whole study was asked for and every item of it is there
    whole = set(workflow.dag_settings.targets) <= {"all"}
    if whole and all(Path(item).exists() for item in rules.all.input):
        options = {
            "configuration": config,
            "out": "results/report.html",
            "log": "logs/make_report.log",
        }
        script = own("workflow_scripts/make_report.py")
        command = command_line([script], options, sys.executable)
        subprocess.run(command, shell=True, check=True)
        job.tolerate_console()
        print(Path("results/summary.txt").read_text(encoding="utf-8"))
    elif makes_items() and (before := items_of_before()):
        print(
            f"Of an earlier run: {', '.join(before)}; snakemake without a target makes them again"
        )
    if "paper_figures" in workflow.dag_settings.targets:
        pictures = [i.path for i in ITEMS if i.path.startswith("results/paper/")]
        print(
            f"results/paper: {', '.join(sorted(Path(path).name for path in pictures))}"
        )
        print(
            "The tables are .html, .md, .tex and .csv, the figures .png, .pdf, .svg and .csv"
        )
