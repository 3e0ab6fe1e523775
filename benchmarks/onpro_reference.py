"""What do the released losses of OnPro and OCM give on fixed inputs? Writes the numbers that the tests compare with.

Run by a Python that has PyTorch: python benchmarks/onpro_reference.py ONPRO OCM OUT.json
with clones of github.com/weilllllls/OnPro and github.com/gydpku/OCM, whose code is run as it is.
"""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

unit = torch.nn.functional.normalize


def module(path: Path, start: str = "", end: str = "") -> Any:
    """The file as a module, or its part from one line to before another."""
    text = path.read_text()
    part = text[text.index(start) : text.index(end) if end else None]
    made = types.ModuleType(path.stem)
    made.__dict__.update(torch=torch, np=np)
    exec(compile(part, str(path), "exec"), made.__dict__)
    return made


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def slope(of: torch.Tensor) -> list:
    assert of.grad is not None
    return of.grad.numpy().round(9).tolist()


def main() -> None:
    onpro, ocm, out = map(Path, sys.argv[1:])
    losses = module(onpro / "losses" / "loss.py")
    rng = np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).round(3)

    z, v, y = values(7, 5), values(7, 5), np.array([0, 1, 1, 3, 3, 3, 0])
    a, b = tensor(z), tensor(v)
    contrast = module(onpro / "modules" / "OPE.py").OPELoss(2, temperature=0.5)
    loss, one, two = contrast(unit(a), unit(b), torch.tensor(y), 1)
    loss.backward()
    found: dict[str, Any] = {
        "z": z.tolist(), "v": v.tolist(), "y": y.tolist(), "ope": loss.item(), "ope_z": slope(a),
        "prototypes": ((one + two) / 2).detach().numpy().round(9).tolist(),
    }  # fmt: skip
    zz, h, labels, start = values(12, 4), values(12, 9), np.array([0, 1, 0, 2, 1.3, 1.3]), 3
    for name, of, scale in (
        ("new", losses.Supervised_NT_xent_n, 1.0),
        ("old", losses.Supervised_NT_xent_uni, 0.5),
    ):
        a, b = tensor(zz), tensor(h)
        window = unit(b)[:, start : start + 4]
        similar = scale * unit(a) @ window.T + scale * unit(a) @ unit(a).T
        loss = of(similar, torch.tensor(labels), temperature=0.07)
        loss.backward()
        found[name] = {"loss": loss.item(), "z": slope(a), "h": slope(b)}
    anchors, a = values(6, 4), tensor(zz[:6])
    teacher = module(
        ocm / "InfoNCE" / "contrastive_learning.py", "def Supervised_NT_xent_pre", "def get_similarity_matrix"
    )  # fmt: skip
    similar = unit(a) @ unit(torch.tensor(anchors)).T
    loss = teacher.Supervised_NT_xent_pre(similar, torch.tensor(labels), temperature=0.07)
    loss.backward()
    found |= {
        "zz": zz.tolist(), "h": h.tolist(), "labels": labels.tolist(), "start": start, "anchors": anchors.tolist(),
        "distilled": {"loss": loss.item(), "z": slope(a)},
    }  # fmt: skip
    x = np.arange(2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3).transpose(0, 3, 1, 2)
    turned = module(onpro / "utils" / "rotation_transform.py").Rotation(torch.tensor(x)).numpy()
    found["turned"] = turned[:, 0].reshape(32, 16).astype(int).tolist()
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
