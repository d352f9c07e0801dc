# The grid: sampler x method x setting x seed. A job makes one cell, or one shard of a cell.

SAMPLES = f"{STUDY}/samples/{CELL}"
SHARD = f"{SAMPLES}/shards/{{shard}}-of-{{shards}}"


rule sample_images:
    input:
        unpack(cell_models),
        autoencoder=autoencoder_files,
        code=code("sample_images"),
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
        gpu=GPU,
        mem_mb=latent_memory,
        runtime=60,
    params:
        models=lambda wc, input: model_arguments(input),
        protocol=option("protocol"),
        conventions=conventions("schedule", "time_input", "class_order"),
        sampler=lambda wc: json.dumps(sampler_options(experiment(wc), wc.sampler)),
        images=option("sampling", "images"),
        batch=option("sampling", "batch"),
        autoencoder=autoencoder,
        precision=option("sampling", "precision"),
        compiled=compiled,
        device=config["device"],
        shard=shard,
    shell:
        "python workflow_scripts/sample_images.py {params.models}"
        " --experiment {wildcards.experiment} --protocol {params.protocol}"
        " --conventions {params.conventions:q}"
        " --sampler {params.sampler:q} --setting {wildcards.setting} --images {params.images}"
        " --batch {params.batch} --train-seed {wildcards.train_seed} --seed {wildcards.seed}"
        " {params.autoencoder} {params.shard} --precision {params.precision} {params.compiled}"
        " --device {params.device}"
        " --out {output.manifest} --log {log}"


use rule sample_images as sample_shard with:
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


rule gather_samples:
    input:
        unpack(cell_shards),
        code=code("gather_samples"),
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
        images=option("sampling", "images"),
    shell:
        "python workflow_scripts/gather_samples.py --shards {input.shards}"
        " --images {params.images} --out {output.manifest} --log {log}"
