"""`make bench-gpu` on a CPU, with tiny networks."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def module():
    spec = importlib.util.spec_from_file_location("bench_gpu", ROOT / "bench/gpu.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


gpu = module()


def run(out: Path, *cases: str) -> int:
    return gpu.main([*cases, "--device", "cpu", "--tiny", "--out", str(out)])


@pytest.mark.slow
def test_all_cases_run_and_measure_every_row_that_is_wanted(tmp_path):
    assert run(tmp_path) == 0
    records = gpu.read(tmp_path / "records.jsonl")
    assert [one["case"] for one in records] == list(gpu.CASES)
    found = {row: value for one in records for row, value in one["medians"].items()}
    assert set(gpu.WANTED) <= set(found)
    assert all(value > 0 for value in found.values())
    for one in records:
        assert {"device", "libraries", "command", "date", "rounds", "seconds"} <= set(one)
        assert {len(values) for values in one["rounds"].values()} == {2}
        assert len(one["product_tflops"]) == 2


def made(rows: dict[str, list[float]]):
    """A case that has measured these rows."""
    return lambda bench: gpu.Measured(rows, {"product": [1e-9, 2e-9]})


@pytest.fixture
def cases(monkeypatch) -> dict:
    found = {"one": made({"a row": [1.0, 3.0, 2.0]}), "two": made({"another": [1.0]})}
    monkeypatch.setattr(gpu, "CASES", found)
    return found


def test_a_case_is_measured_once_for_the_same_code_device_and_libraries(tmp_path, cases, capsys):
    assert run(tmp_path, "one") == 0
    assert run(tmp_path) == 0
    path = tmp_path / "records.jsonl"
    assert [one["case"] for one in gpu.read(path)] == ["one", "two"]
    assert gpu.read(path)[0]["medians"] == {"a row": 2.0}
    assert "one: recorded before" in capsys.readouterr().out
    other = gpu.read(path)[0] | {"code": "other"}
    path.write_text(json.dumps(other) + "\n", encoding="utf-8")
    assert run(tmp_path, "one") == 0
    assert len(gpu.read(path)) == 2


def test_a_case_that_fails_lets_the_others_run_and_is_told(tmp_path, cases, capsys):
    def fails(bench):
        raise ValueError("out of memory")

    cases["one"] = fails
    assert run(tmp_path) == 1
    assert [one["case"] for one in gpu.read(tmp_path / "records.jsonl")] == ["two"]
    assert "one: failed" in capsys.readouterr().out


def test_the_table_says_what_is_reached_missed_and_open(tmp_path, cases, monkeypatch):
    wanted = {"a row": (">=", 1.5, 2.5), "another": ("<=", 0.9, None), "third": ("<=", 1.0, 0.9)}
    monkeypatch.setattr(gpu, "WANTED", wanted)
    run(tmp_path)
    table = (tmp_path / "bench_gpu.md").read_text(encoding="utf-8")
    assert "| a row | >= 1.5 | >= 2.5 | 2.000 | 1.000 to 3.000, n = 3 | floor reached |" in table
    assert "| another | <= 0.9 |  | 1.000 | 1.000 to 1.000, n = 1 | missed |" in table
    assert "| third | <= 1 | <= 0.9 |  |  | open |" in table
    assert gpu.verdict(2.5, ">=", 1.5, 2.5) == "aim reached"


def test_without_a_gpu_or_with_an_unknown_case_it_says_so(tmp_path, cases, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, said in (([], "sees no CUDA device"), (["three"], "accepted: one, two")):
        with pytest.raises(SystemExit) as ended:
            gpu.main([*arguments, "--out", str(tmp_path / "none")])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_without_torch_it_says_so_in_a_line():
    code = (
        "import runpy, sys\n"
        "sys.modules['torch'] = None\n"
        f"runpy.run_path({gpu.__file__!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert re.fullmatch(
        r"make bench-gpu: found no package torch for .*; accepted: .*\n", done.stderr
    )


@pytest.mark.parametrize(("mean", "depth"), [(12.87, 13), (10.87, 13), (8.8, 13), (20.5, 21)])
def test_exits_have_the_mean_that_they_are_asked_for(mean, depth):
    layers = gpu.exits_around(mean, depth, 128)
    assert layers.double().mean().item() == pytest.approx(mean, abs=0.02)
    assert 0 <= layers.min() <= layers.max() <= depth


@pytest.mark.parametrize("theta", [0.02, 0.5, 0.98])
def test_scripted_heads_let_each_image_leave_where_its_time_says_in_bfloat16_too(theta):
    torch.manual_seed(0)
    net = gpu.UViT(img_size=4, patch_size=2, in_chans=3, embed_dim=128, depth=13, num_heads=2)
    model = gpu.scripted_heads(gpu.AdaDiff(net)).eval()
    layers = torch.arange(14).flip(0)
    x, t = torch.randn(14, 3, 4, 4), gpu.time_of(layers, 13)
    for run in (model, model.simulate_exit):
        for enabled in (False, True):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled):
                assert torch.equal(run(x, t, None, theta)[1], layers)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNT", "products"),
        ("triton_tem_fused_addmm_gelu_3", "products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "products"),
        ("aten::addmm", "products"),
        (
            "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128>>",
            "attention",
        ),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", "attention"),
        ("triton_per_fused_add_native_layer_norm_2", "the rest"),
        ("triton_poi_fused_addmm_gelu_1", "the rest"),
        ("Memset (Device)", "the rest"),
    ],
)
def test_a_kernels_name_says_what_it_computes(kernel, kind):
    assert gpu.kind_of(kernel) == kind


def test_the_shares_of_a_breakdown_are_of_one_whole(tmp_path):
    assert run(tmp_path, "breakdown S/2") == 0
    (found,) = gpu.read(tmp_path / "records.jsonl")
    shares = [values for row, values in found["rounds"].items() if "share of" in row]
    assert len(shares) > 1
    assert [sum(values) for values in zip(*shares, strict=True)] == pytest.approx([1, 1])
    assert found["medians"]["S/2 full, products: their rate over the product's"] > 0
