# Tables and figures as rows of the list in paper.smk, and those that an earlier study has left.
import sys
from pathlib import Path
from typing import NamedTuple

from duodiff.running import receipts

STUDIES = {"studies": described()}
# The suffixes of an item's files. The report shows the last one.
TABLE, FIGURE = (".csv", ".md", ".tex", ".html"), (".csv", ".png", ".pdf", ".svg")


class Item(NamedTuple):
    """One row of the table in paper.smk: a rule, and the item's place in the report.

    The report shows an item that has a label, with the caption report/<item>.rst. An item has only one label. With two,
    the report's page draws a toggle, which breaks if a combination of labels does not exist.
    """

    name: str  # of the rule
    path: str  # of its files, without their suffixes
    suffixes: tuple[str, ...]
    inputs: dict  # by the names of the script's options
    options: dict  # the script's other options
    own: dict  # files of the workflow, by the names of the script's options
    category: str = ""
    label: str = ""
    script: str = ""  # if its name is not the rule's name


def flatten(paths):
    """The paths of an input, of which there is one or several."""
    return [paths] if isinstance(paths, str) else [str(path) for path in paths]


def by_study(paths):
    """The paths in order of their studies or datasets, since the order of the configuration's keys decides nothing."""
    return sorted(flatten(paths), key=lambda path: path.split("/")[:3])


def own_files(inputs):
    """The files of this workflow among a row's inputs, and the others."""
    ours = {
        k: v
        for k, v in inputs.items()
        if isinstance(v, str) and not v.startswith("results/")
    }
    return ours, {k: v for k, v in inputs.items() if k not in ours}


def table(item, label, category="Tables", options=STUDIES, **inputs):
    """A row for a table: make_<item> writes it to results/tables."""
    ours, inputs = own_files(inputs)
    path = f"results/tables/{item}"
    return Item(f"make_{item}", path, TABLE, inputs, options, ours, category, label)


def figure(item, label, category="Figures", **inputs):
    """A row for a figure: plot_<item> draws it into results/figures."""
    ours, inputs = own_files(inputs)
    path = f"results/figures/{item}"
    return Item(f"plot_{item}", path, FIGURE, inputs, STUDIES, ours, category, label)


def published(item, script, **inputs):
    """A row for the paper's published numbers alone. It uses another item's script, without records and studies."""
    ours, inputs = own_files(inputs)
    name, path = f"make_published_{item}", f"results/paper/{item}"
    suffixes = TABLE if script.startswith("make_") else FIGURE
    return Item(name, path, suffixes, inputs, {"studies": {}}, ours, script=script)


def item_work(item):
    """The work of an item's rule."""
    fixed = [paths for paths in item.inputs.values() if not callable(paths)]
    asked = [paths for paths in item.inputs.values() if callable(paths)]
    return Work(
        item.script or item.name,
        paths=lambda wc, input, output: named_inputs(input) | {"out": list(output)},
        decides=lambda wc: item.options,
        own=lambda wc: item.own,
        named=lambda wc: [
            path
            for paths in [*map(by_study, fixed), *(function(wc) for function in asked)]
            for path in flatten(paths)
        ],
    )


# The folders of a study's items. An earlier study may have left items there that this one does not make.
SHOWN = ("tables", "figures")
ITEM_WORKS = {}  # by the items' paths


def makes_items():
    """Whether the run that begins or has ended makes items of the study."""
    firsts = {first for _, first in ITEM_WORKS.values()}
    jobs = workflow._dag.needrun_jobs(exclude_finished=False)
    return any(not firsts.isdisjoint(map(str, job.output)) for job in jobs)


def remove_other_items():
    """Removes what an earlier study left beside the items of this one, and says so in one line."""
    asked = {str(path) for job in workflow._dag.jobs for path in job.output}
    removed = receipts.remove_others(SHOWN, asked | {*map(str, rules.all.input)})
    if removed:
        names = sorted({str(Path(path).with_suffix("")) for path in removed})
        print(
            f"Removed, of an earlier configuration and not made by this one: {', '.join(names)}",
            file=sys.stderr,
        )


def items_of_before():
    """The items that are there and are not those that this configuration and the records at hand give."""
    found = []
    for path, (work, first) in ITEM_WORKS.items():
        if Path(first).exists():
            try:
                receipt = receipts.read(receipts.receipt_of(first))
            except (OSError, ValueError):
                continue  # nobody knows what made it
            if receipt["identity"] != work.identity(Named()) or receipts.changed_inputs(
                receipt
            ):
                found.append(path)
    return found
