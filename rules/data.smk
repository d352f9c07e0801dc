# Datasets into packed stores.


rule pack_dataset:
    input:
        code=code("pack_dataset"),
    output:
        manifest="results/{experiment}/data/manifest.json",
        images="results/{experiment}/data/images.npy",
        labels="results/{experiment}/data/labels.npy",
    log:
        "logs/{experiment}/pack_dataset.log",
    benchmark:
        "benchmarks/{experiment}/pack_dataset.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        source=option("dataset", "source"),
        held_out=option("dataset", "held_out"),
    shell:
        "python workflow_scripts/pack_dataset.py --source {params.source}"
        " --held-out {params.held_out} --out {output.manifest} --log {log}"
