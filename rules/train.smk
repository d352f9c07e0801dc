# Trains the full and the shallow backbone independently (Section 3), AdaDiff's heads on the full backbone (Appendix A),
# and the classifier whose features measure distances.


rule train_backbone:
    input:
        data=training_data,
        code=code("train_backbone"),
    output:
        manifest=f"{STUDY}/{{backbone}}/manifest.json",
        weights=f"{STUDY}/{{backbone}}/model.safetensors",
        curve=f"{STUDY}/{{backbone}}/curve.csv",
    log:
        f"{LOG}/train_backbone/{{backbone}}.log",
    benchmark:
        f"{BENCHMARK}/train_backbone/{{backbone}}.tsv"
    priority: 10
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=TRAINING_GPUS,
        mem_mb=2000,
        runtime=60,
    params:
        architecture=lambda wc: json.dumps(
            backbone_architecture(experiment(wc), wc.backbone)
        ),
        conventions=conventions("schedule", "time_input", "prediction"),
        null_class=lambda wc: json.dumps(experiment(wc)["null_class"]),
        training=option("backbone_training"),
        device=config["device"],
        monitor=f"{LOG}/train_backbone/{{backbone}}",
    shell:
        "python -m duodiff.running.launch {resources.gpu} workflow_scripts/train_backbone.py --data {input.data}"
        " --architecture {params.architecture:q} --conventions {params.conventions:q}"
        " --null-class {params.null_class} --training {params.training:q}"
        " --seed {wildcards.train_seed} --device {params.device} --monitor {params.monitor}"
        " --out {output.manifest} --log {log}"


rule train_heads:
    input:
        data=training_data,
        full=lambda wc: model(wc, "full"),
        code=code("train_heads"),
    output:
        manifest=f"{STUDY}/heads/manifest.json",
        weights=f"{STUDY}/heads/model.safetensors",
        curve=f"{STUDY}/heads/curve.csv",
    log:
        f"{LOG}/train_heads.log",
    benchmark:
        f"{BENCHMARK}/train_heads.tsv"
    priority: 10
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        gpu=TRAINING_GPUS,
        mem_mb=2000,
        runtime=60,
    params:
        conventions=conventions("schedule", "time_input"),
        training=option("heads_training"),
        protocol=option("protocol"),
        device=config["device"],
        monitor=f"{LOG}/train_heads",
    shell:
        "python -m duodiff.running.launch {resources.gpu} workflow_scripts/train_heads.py --data {input.data} --backbone {input.full}"
        " --conventions {params.conventions:q} --training {params.training:q}"
        " --protocol {params.protocol} --seed {wildcards.train_seed} --device {params.device}"
        " --monitor {params.monitor}"
        " --out {output.manifest} --log {log}"


rule train_classifier:
    input:
        data=f"{PACKED}/manifest.json",
        code=code("train_classifier"),
    output:
        weights=f"{PACKED}/{{metric}}/classifier.safetensors",
    log:
        "logs/data/{dataset}/{metric}/train_classifier.log",
    benchmark:
        "benchmarks/data/{dataset}/{metric}/train_classifier.tsv"
    priority: 15  # before the backbones: it takes a minute, and fails if there are no classes
    conda:
        "../envs/environment.yaml"
    threads: config["threads"]
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        steps=lambda wc: classifier(wc)["steps"],
        batch=lambda wc: classifier(wc)["batch"],
    shell:
        "python workflow_scripts/train_classifier.py --data {input.data} --steps {params.steps}"
        " --batch {params.batch} --out {output.weights} --log {log}"
