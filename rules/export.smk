# Samples for other tools, made on request:
# `snakemake results/digits/train0/export/ddpm/duodiff/t_s=500/seed0.npz`, or `.../seed0` for PNGs.


EXPORT_NPZ = Work(
    "export_samples",
    paths=lambda wc, input, output: {"samples": input.samples, "out": output.npz},
)


rule export_npz:
    input:
        samples=f"{STUDY}/samples/{CELL}/manifest.json",
        accepted=EXPORT_NPZ.accepted("export_npz"),
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
        runtime=minutes(60),
    params:
        identity=EXPORT_NPZ.identity,
        command=EXPORT_NPZ.command,
    shell:
        COMMAND


EXPORT_PNGS = Work(
    "export_samples",
    paths=lambda wc, input, output: {"samples": input.samples, "out": output.folder},
)


rule export_pngs:
    input:
        samples=f"{STUDY}/samples/{CELL}/manifest.json",
        accepted=read_beside("export_pngs"),
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
        runtime=minutes(60),
    params:
        identity=EXPORT_PNGS.identity,
        command=EXPORT_PNGS.command,
    shell:
        COMMAND
