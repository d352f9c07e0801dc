# DuoDiff, end to end: see README.md for the commands, config/config.yaml for every option.
import subprocess
import sys

from snakemake.utils import min_version

min_version("9.0")

# A configuration file given on the command line replaces the default instead of merging into it.
if "experiments" not in config:

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/profile.smk"
include: "rules/sample.smk"
include: "rules/evaluate.smk"
include: "rules/export.smk"
include: "rules/paper.smk"


report: "report/workflow.rst"


rule all:
    default_target: True
    input:
        rules.summarise.output,
        rules.make_table1.output,
        rules.make_table2.output,
        rules.make_table3.output,
        rules.make_table4.output,
        rules.make_metrics.output,
        rules.make_resources.output,
        rules.make_claims.output,
        rules.plot_figure1.output if EXITS else [],
        rules.plot_figure2.output,
        rules.plot_figure3.output,
        rules.plot_figure4.output,
        rules.plot_figure5.output,
        rules.plot_figure6.output,
        rules.plot_figure7.output,
        rules.plot_relative.output,
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


onsuccess:
    # the HTML report, when the whole study was asked for and every item of it is there
    whole = set(workflow.dag_settings.targets) <= {"all"}
    if whole and all(Path(item).exists() for item in rules.all.input):
        configuration = [f"--configfile={path}" for path in workflow.configfiles]
        overrides = [f"{k}={v}" for k, v in workflow.config_settings.config.items()]
        configuration += ["--config", *overrides] if overrides else []
        snakefile = f"--snakefile={workflow.main_snakefile}"
        command = [sys.executable, "-m", "snakemake", snakefile, *configuration]
        report = ["--report=results/report.html", "--quiet=all"]
        style = f"--report-stylesheet={ROOT}/report/report.css"
        subprocess.run([*command, *report, style], check=True)
        print(Path("results/summary.txt").read_text())
