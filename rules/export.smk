# Samples for other tools, made on request:
# `snakemake results/digits/train0/export/ddpm/duodiff/t_s=500/seed0.npz`, or `.../seed0` for PNGs.


rule export_npz:
    input:
        samples=f"{STUDY}/samples/{CELL}/manifest.json",
        code=code("export_samples"),
    output:
        npz=f"{STUDY}/export/{CELL}.npz",
    log:
        f"{LOG}/export_npz/{CELL}.log",
    benchmark:
        f"{BENCHMARK}/export_npz/{CELL}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "python workflow_scripts/export_samples.py --samples {input.samples}"
        " --out {output.npz} --log {log}"


rule export_pngs:
    input:
        samples=f"{STUDY}/samples/{CELL}/manifest.json",
        code=code("export_samples"),
    output:
        folder=directory(f"{STUDY}/export/{CELL}"),
    log:
        f"{LOG}/export_pngs/{CELL}.log",
    benchmark:
        f"{BENCHMARK}/export_pngs/{CELL}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    shell:
        "python workflow_scripts/export_samples.py --samples {input.samples}"
        " --out {output.folder} --log {log}"
