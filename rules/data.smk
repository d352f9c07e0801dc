# Datasets and published weights. Datasets are fetched where there is a network, and packed into stores. An autoencoder,
# published or trained here, encodes them into latents.
# The rules that look for files come first (priority). So a missing file is named before anything is computed.


rule fetch_dataset:
    input:
        code=code("fetch_dataset"),
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
        dataset=images,
        data=DATA,
    shell:
        "python workflow_scripts/fetch_dataset.py --dataset {params.dataset:q}"
        " --data {params.data:q} --out {output.receipt} --log {log}"


rule pack_dataset:
    input:
        receipt=lambda wc: (
            [] if dataset(wc)["source"] == "digits" else f"{PACKED}/fetched.json"
        ),
        code=code("pack_dataset"),
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
        runtime=600,
    params:
        dataset=images,
        data=DATA,
    shell:
        "python workflow_scripts/pack_dataset.py --dataset {params.dataset:q}"
        " --data {params.data:q} --workers {threads} --out {output.manifest} --log {log}"


rule fetch_autoencoder:
    input:
        code=code("fetch_autoencoder"),
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
        autoencoder=lambda wc: json.dumps(dataset(wc)["autoencoder"]),
        data=DATA,
    shell:
        "python workflow_scripts/fetch_autoencoder.py --autoencoder {params.autoencoder:q}"
        " --data {params.data:q} --out {output.receipt} --log {log}"


rule train_autoencoder:
    input:
        images=rules.pack_dataset.output.manifest,
        code=code("train_autoencoder"),
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
        gpu=GPU,
        mem_mb=8000,
        runtime=1440,
    params:
        architecture=lambda wc: json.dumps(dataset(wc)["autoencoder"]["architecture"]),
        training=lambda wc: json.dumps(dataset(wc)["autoencoder"]["train"]),
        device=config["device"],
        monitor="logs/data/{dataset}/train_autoencoder",
    shell:
        "python workflow_scripts/train_autoencoder.py --data {input.images}"
        " --architecture {params.architecture:q} --training {params.training:q}"
        " --device {params.device} --monitor {params.monitor} --out {output.config} --log {log}"


rule encode_latents:
    input:
        images=rules.pack_dataset.output.manifest,
        autoencoder=autoencoder_files,
        code=code("encode_latents"),
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
        gpu=GPU,
        mem_mb=latent_memory,
        runtime=1440,
    params:
        autoencoder=autoencoder,
        device=config["device"],
    shell:
        "python workflow_scripts/encode_latents.py --images {input.images} {params.autoencoder}"
        " --shard {wildcards.shard} --shards {wildcards.shards}"
        " --device {params.device} --out {output.description} --log {log}"


rule gather_latents:
    input:
        unpack(latent_shards),
        images=rules.pack_dataset.output.manifest,
        code=code("gather_latents"),
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
        runtime=60,
    shell:
        "python workflow_scripts/gather_latents.py --images {input.images}"
        " --shards {input.shards} --out {output.manifest} --log {log}"


rule import_weights:
    input:
        code=code("import_weights"),
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
        weights=option("pretrained"),
        data=DATA,
        architecture=option("backbone"),
        conventions=published_conventions,
        null_class=lambda wc: json.dumps(experiment(wc)["null_class"]),
    shell:
        "python workflow_scripts/import_weights.py --weights {params.weights:q}"
        " --data {params.data:q} --architecture {params.architecture:q}"
        " --conventions {params.conventions:q} --null-class {params.null_class}"
        " --out {output.manifest} --log {log}"


rule fetch_extractor:
    input:
        code=code("fetch_extractor"),
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
        weights=lambda wc: weights_path(wc.extractor, DATA, config["extractors"]),
    shell:
        "python workflow_scripts/fetch_extractor.py --name {wildcards.extractor}"
        " --weights {params.weights:q} --out {output.receipt} --log {log}"
