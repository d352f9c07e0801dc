# The grid: sampler x method x setting x seed. A job makes one cell, or one shard of a cell.

SAMPLES = f"{STUDY}/samples/{CELL}"
SHARD = f"{SAMPLES}/shards/{{shard}}-of-{{shards}}"


SAMPLE_IMAGES = Work(
    "sample_images",
    decides=lambda wc: study_options(wc)
    | autoencoder(wc)
    | {
        "sampler": sampler_options(experiment(wc), wc.sampler),
        "setting": wc.setting,
        "images": experiment(wc)["sampling"]["images"],
        "batch": experiment(wc)["sampling"]["batch"],
        "train_seed": wc.train_seed,
        "seed": wc.seed,
        "compiled": compiled(wc),
    }
    | named_schedules(wc, [Setting.parse(wc.setting)]),
    how=lambda wc: shard(wc)
    | {"data": autoencoder_folder(wc), "device": config["device"]},
    paths=lambda wc, input, output: models_of(input) | {"out": output.manifest},
    kept=True,
)


rule sample_images:
    input:
        unpack(cell_models),
        autoencoder=autoencoder_files,
        accepted=SAMPLE_IMAGES.accepted("sample_images"),
    output:
        manifest=f"{SAMPLES}/manifest.json",
        images=f"{SAMPLES}/images.npy",
        labels=f"{SAMPLES}/labels.npy",
        blocks=f"{SAMPLES}/blocks_run.npy",
    log:
        f"{LOG}/sample_images/{CELL}.log",
    benchmark:
        f"{BENCHMARK}/sample_images/{CELL}.tsv"
    wildcard_constraints:
        experiment=cells(in_shards=False),
    priority: 5
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus(GPU),
        mem_mb=latent_memory,
        runtime=minutes(240),
    params:
        identity=SAMPLE_IMAGES.identity,
        command=SAMPLE_IMAGES.command,
    shell:
        COMMAND


# All cells of a training in one process, on request: `snakemake results/digits/train0/samples/cells.json`. Where starts
# cost, as on a GPU that compiles, this is the first of two runs. The second finds the cells as sample_images makes them.
SAMPLE_CELLS = Work(
    "sample_cells",
    decides=lambda wc: shared_options(SAMPLE_IMAGES, cells_of(wc)),
    how=lambda wc: {
        "files": [planned_files("sample_images", cell) for cell in cells_of(wc)],
        "work": SAMPLE_IMAGES.function,
        "data": autoencoder_folder(wc),
        "device": config["device"],
    },
    paths=lambda wc, input, output: models_of(input) | {"out": output.made},
)


rule sample_cells:
    input:
        unpack(measured_models),
        autoencoder=autoencoder_files,
        accepted=SAMPLE_CELLS.accepted("sample_cells"),
    output:
        made=f"{STUDY}/samples/cells.json",
    log:
        f"{LOG}/sample_cells.log",
    benchmark:
        f"{BENCHMARK}/sample_cells.tsv"
    wildcard_constraints:
        experiment=without_shards_of_cells(),
    priority: 5
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus(GPU),
        mem_mb=latent_memory,
        runtime=minutes(720),
    params:
        identity=SAMPLE_CELLS.identity,
        command=SAMPLE_CELLS.command,
    shell:
        COMMAND


use rule sample_images as sample_shard with:
    input:
        unpack(cell_models),
        autoencoder=autoencoder_files,
        accepted=SAMPLE_IMAGES.accepted("sample_shard"),
    output:
        manifest=temp(f"{SHARD}/manifest.json"),
        images=temp(f"{SHARD}/images.npy"),
        labels=temp(f"{SHARD}/labels.npy"),
        blocks=temp(f"{SHARD}/blocks_run.npy"),
    log:
        f"{LOG}/sample_shard/{CELL}/{{shard}}-of-{{shards}}.log",
    benchmark:
        f"{BENCHMARK}/sample_shard/{CELL}/{{shard}}-of-{{shards}}.tsv"
    wildcard_constraints:
        experiment=cells(in_shards=True),


GATHER_SAMPLES = Work(
    "gather_samples",
    decides=lambda wc: {"images": experiment(wc)["sampling"]["images"]},
    paths=lambda wc, input, output: {"shards": input.shards, "out": output.manifest},
    like=SAMPLE_IMAGES,
)


rule gather_samples:
    input:
        unpack(cell_shards),
        # what the shards were made from, which are gone once they are joined
        unpack(cell_models),
        autoencoder=autoencoder_files,
        accepted=GATHER_SAMPLES.accepted("gather_samples"),
    output:
        manifest=f"{SAMPLES}/manifest.json",
        images=f"{SAMPLES}/images.npy",
        labels=f"{SAMPLES}/labels.npy",
        blocks=f"{SAMPLES}/blocks_run.npy",
    log:
        f"{LOG}/gather_samples/{CELL}.log",
    benchmark:
        f"{BENCHMARK}/gather_samples/{CELL}.tsv"
    wildcard_constraints:
        experiment=cells(in_shards=True),
    priority: 5
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        identity=GATHER_SAMPLES.identity,
        command=GATHER_SAMPLES.command,
    shell:
        COMMAND
