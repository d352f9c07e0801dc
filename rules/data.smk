# Datasets and published weights. Datasets are fetched where there is a network, and packed into stores. An autoencoder,
# published or trained here, encodes them into latents.
# The rules that look for files come first (priority). So a missing file is named before anything is computed.


FETCH_DATASET = Work(
    "fetch_dataset",
    decides=lambda wc: {"dataset": images(wc)},
    how=lambda wc: {"data": DATA},
    paths=lambda wc, input, output: {"out": output.receipt},
    watched=own_data,
)


rule fetch_dataset:
    input:
        accepted=FETCH_DATASET.accepted("fetch_dataset"),
    output:
        receipt=f"{PACKED}/fetched.json",
    log:
        "logs/data/{dataset}/fetch_dataset.log",
    benchmark:
        "benchmarks/data/{dataset}/fetch_dataset.tsv"
    priority: 20
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=600,
    params:
        identity=FETCH_DATASET.identity,
        command=FETCH_DATASET.command,
    shell:
        COMMAND


PACK_DATASET = Work(
    "pack_dataset",
    decides=lambda wc: {"dataset": images(wc)},
    how=lambda wc: {"data": DATA},
    paths=lambda wc, input, output: {"out": output.manifest},
    workers="workers",
    watched=own_data,
)


rule pack_dataset:
    input:
        receipt=lambda wc: (
            [] if dataset(wc)["source"] == "digits" else f"{PACKED}/fetched.json"
        ),
        accepted=PACK_DATASET.accepted("pack_dataset"),
    output:
        manifest=f"{PACKED}/manifest.json",
        images=f"{PACKED}/images.npy",
        labels=f"{PACKED}/labels.npy",
    log:
        "logs/data/{dataset}/pack_dataset.log",
    benchmark:
        "benchmarks/data/{dataset}/pack_dataset.tsv"
    conda:
        "../envs/environment.yaml"
    threads: min(8, ALL_CORES)
    resources:
        mem_mb=2000,
        runtime=minutes(600),
    params:
        identity=PACK_DATASET.identity,
        command=PACK_DATASET.command,
    shell:
        COMMAND


FETCH_AUTOENCODER = Work(
    "fetch_autoencoder",
    decides=lambda wc: {"autoencoder": section(wc)},
    how=lambda wc: {"data": DATA},
    paths=lambda wc, input, output: {"out": output.receipt},
    watched=own_autoencoder,
)


rule fetch_autoencoder:
    input:
        accepted=FETCH_AUTOENCODER.accepted("fetch_autoencoder"),
    output:
        receipt=f"{PACKED}/autoencoder.json",
    log:
        "logs/data/{dataset}/fetch_autoencoder.log",
    benchmark:
        "benchmarks/data/{dataset}/fetch_autoencoder.tsv"
    priority: 20
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        identity=FETCH_AUTOENCODER.identity,
        command=FETCH_AUTOENCODER.command,
    shell:
        COMMAND


TRAIN_AUTOENCODER = Work(
    "train_autoencoder",
    decides=lambda wc: {
        "architecture": dataset(wc)["autoencoder"]["architecture"],
        "training": dataset(wc)["autoencoder"]["train"],
    },
    how=lambda wc: {
        "device": config["device"],
        "monitor": f"logs/data/{wc.dataset}/train_autoencoder",
    },
    paths=lambda wc, input, output: {"data": input.images, "out": output.config},
    kept=True,
)


rule train_autoencoder:
    input:
        images=rules.pack_dataset.output.manifest,
        accepted=TRAIN_AUTOENCODER.accepted("train_autoencoder"),
    output:
        config=f"{PACKED}/autoencoder/config.json",
        weights=f"{PACKED}/autoencoder/{AUTOENCODER_WEIGHTS}",
    log:
        "logs/data/{dataset}/train_autoencoder.log",
    benchmark:
        "benchmarks/data/{dataset}/train_autoencoder.tsv"
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus(GPU),
        mem_mb=8000,
        runtime=minutes(720),
    params:
        identity=TRAIN_AUTOENCODER.identity,
        command=TRAIN_AUTOENCODER.command,
    shell:
        COMMAND


ENCODE_LATENTS = Work(
    "encode_latents",
    decides=lambda wc: autoencoder(wc),
    how=lambda wc: shard(wc)
    | {"data": autoencoder_folder(wc), "device": config["device"]},
    paths=lambda wc, input, output: {"images": input.images, "out": output.description},
    kept=True,
)


rule encode_latents:
    input:
        images=rules.pack_dataset.output.manifest,
        autoencoder=autoencoder_files,
        accepted=ENCODE_LATENTS.accepted("encode_latents"),
    output:
        description=temp(f"{PACKED}/latents/shards/{{shard}}-of-{{shards}}.json"),
        moments=temp(f"{PACKED}/latents/shards/{{shard}}-of-{{shards}}.npy"),
    log:
        "logs/data/{dataset}/encode_latents/{shard}-of-{shards}.log",
    benchmark:
        "benchmarks/data/{dataset}/encode_latents/{shard}-of-{shards}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus(GPU),
        mem_mb=latent_memory,
        runtime=minutes(240),
    params:
        identity=ENCODE_LATENTS.identity,
        command=ENCODE_LATENTS.command,
    shell:
        COMMAND


GATHER_LATENTS = Work(
    "gather_latents",
    paths=lambda wc, input, output: {
        "images": input.images,
        "shards": input.shards,
        "out": output.manifest,
    },
    like=ENCODE_LATENTS,
)


rule gather_latents:
    input:
        unpack(latent_shards),
        images=rules.pack_dataset.output.manifest,
        # what the shards were made with, which are gone once they are joined
        autoencoder=autoencoder_files,
        accepted=GATHER_LATENTS.accepted("gather_latents"),
    output:
        manifest=f"{PACKED}/latents/manifest.json",
        moments=f"{PACKED}/latents/moments.npy",
        labels=f"{PACKED}/latents/labels.npy",
    log:
        "logs/data/{dataset}/gather_latents.log",
    benchmark:
        "benchmarks/data/{dataset}/gather_latents.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=minutes(60),
    params:
        identity=GATHER_LATENTS.identity,
        command=GATHER_LATENTS.command,
    shell:
        COMMAND


IMPORT_WEIGHTS = Work(
    "import_weights",
    decides=lambda wc: {
        "weights": experiment(wc)["pretrained"],
        "architecture": experiment(wc)["backbone"],
        "conventions": published_conventions(wc),
        "null_class": experiment(wc)["null_class"],
    },
    how=lambda wc: {"data": DATA},
    paths=lambda wc, input, output: {"out": output.manifest},
    watched=own_weights,
)


rule import_weights:
    input:
        accepted=IMPORT_WEIGHTS.accepted("import_weights"),
    output:
        manifest="results/{experiment}/pretrained/manifest.json",
        weights="results/{experiment}/pretrained/model.safetensors",
    log:
        "logs/{experiment}/import_weights.log",
    benchmark:
        "benchmarks/{experiment}/import_weights.tsv"
    priority: 20
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        identity=IMPORT_WEIGHTS.identity,
        command=IMPORT_WEIGHTS.command,
    shell:
        COMMAND


FETCH_EXTRACTOR = Work(
    "fetch_extractor",
    decides=lambda wc: {"name": wc.extractor},
    how=lambda wc: {"weights": weights_path(wc.extractor, DATA, config["extractors"])},
    paths=lambda wc, input, output: {"out": output.receipt},
    watched=own_extractor,
)


rule fetch_extractor:
    input:
        accepted=FETCH_EXTRACTOR.accepted("fetch_extractor"),
    output:
        receipt="results/data/extractors/{extractor}.json",
    log:
        "logs/data/fetch_extractor/{extractor}.log",
    benchmark:
        "benchmarks/data/fetch_extractor/{extractor}.tsv"
    priority: 20
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        identity=FETCH_EXTRACTOR.identity,
        command=FETCH_EXTRACTOR.command,
    shell:
        COMMAND


FETCH_CLASSIFIER = Work(
    "fetch_classifier",
    paths=lambda wc, input, output: {"data": input.data, "out": output.weights},
    own=lambda wc: {
        "weights": f"config/classifiers/{wc.metric}.safetensors",
        "description": f"config/classifiers/{wc.metric}.json",
    },
)


rule fetch_classifier:
    input:
        data=f"{PACKED}/manifest.json",
        accepted=FETCH_CLASSIFIER.accepted("fetch_classifier"),
    output:
        weights=f"{PACKED}/{{metric}}/classifier.safetensors",
    log:
        "logs/data/{dataset}/{metric}/fetch_classifier.log",
    benchmark:
        "benchmarks/data/{dataset}/{metric}/fetch_classifier.tsv"
    wildcard_constraints:
        dataset=datasets_with_classifier(shipped=True),
    priority: 15  # before the backbones: it fails for other images
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        identity=FETCH_CLASSIFIER.identity,
        command=FETCH_CLASSIFIER.command,
    shell:
        COMMAND


if workflow.is_main_process and not REPORTING:
    refuse_changes_outside()
