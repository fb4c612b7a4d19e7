"""The benchmark of training steps: its parts, its peers, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks import protocol, training
from benchmarks.protocol import NOT_MEASURED

TINY = ("model.name=unet", "model.features=[4,8]", "model.stem=1")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(training, "SIZE", (64, 96))
    monkeypatch.setattr(training, "TRAIN", 4)
    monkeypatch.setattr(training, "VAL", 2)
    monkeypatch.setattr(training, "NETWORKS", {"tiny": training.Network("Tiny", TINY, "tutorial")})
    return tmp_path / "found.json"


def test_a_network_is_measured_beside_its_peer(small: Path) -> None:
    training.run(["tiny"], rounds=2, side=32, out=small)
    [row] = json.loads(small.read_text())["rows"]
    assert set(row["parts"]) == set(training.PARTS)
    assert all(seconds > 0 for seconds in row["parts"].values())
    assert row["parts"]["model"] < row["seconds"]
    assert min(row["validation"], row["peer"]["ratio"], row["peer"]["seconds"]) > 0
    line = training.table(small).splitlines()[2]
    assert line.startswith("| Tiny (0.0 M, ")
    assert line.count("|") == training.table(small).splitlines()[0].count("|")


@pytest.mark.parametrize("name", training.PEERS)
def test_peers_train(name: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pixelwise.demo.synthetic import write_road_scenes

    write_road_scenes(small.parent / "data", train=4, val=2, test=1, size=(64, 96))
    ours = training.Ours(small.parent / "data", TINY, 32, small.parent / "run")
    stepped: list[torch.optim.Optimizer] = []
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        real = kind.step
        monkeypatch.setattr(kind, "step", lambda self, *a, real=real, **k: (stepped.append(self), real(self, *a, **k)))
    step = training.PEERS[name](ours)
    step()
    step()
    assert len(stepped) == 2
    assert all(p.grad is not None for group in stepped[0].param_groups for p in group["params"])


def test_shares_and_ratios_are_shown(tmp_path: Path) -> None:
    assert training.table(tmp_path / "none.json") == NOT_MEASURED
    parts = dict(zip(training.PARTS, (0.1, 0.6, 0.1, 0.15, 0.05), strict=True))
    row = {"network": "unet-31m", "parameters": 31_000_000, "precision": "bf16", "channels_last": True, "seconds": 1.5}
    row |= {"parts": parts, "validation": 0.2, "peer": {"name": "tutorial", "seconds": 6.0, "ratio": 4.0}}
    alone = {key: value for key, value in row.items() if key != "peer"} | {"network": "deeplabv3"}
    facts = {"cores": 2, "processor": "X", "torch": "2", "cpu_features": ["avx512f", "amx_bf16"], "commit": "a1"}
    facts |= {"rounds": 9, "batch": 4, "side": 256, "versions": {"transformers": "5"}, "rows": [row, alone]}
    (tmp_path / "some.json").write_text(json.dumps(facts))
    assert training.table(tmp_path / "some.json").splitlines()[2:] == [
        "| U-Net, 31 M (31.0 M, bf16, channels-last) | 1,500 ms | 10 % | 60 % | 10 % | 15 % | 5 % | 200 ms | tutorial | 6,000 ms "
        "| 4.00 |",
        "| DeepLabV3, ResNet-50 (31.0 M, bf16, channels-last) | 1,500 ms | 10 % | 60 % | 10 % | 15 % | 5 % | 200 ms | – | – | – |",
        "",
        "Medians of 9 alternating rounds, 4 crops of 256×256; 2 cores of X (avx512f, amx_bf16), torch 2; transformers 5; "
        "pixelwise at a1.",
    ]


def test_instructions_of_the_processor(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("model name\t: X\nflags\t\t: fpu avx512f amx_bf16 amx_tile\nflags\t\t: fpu avx512f\n")
    assert protocol.cpu_features(path) == ["avx512f", "amx_bf16"]
    assert protocol.cpu_features(tmp_path / "none") == []
