"""`MaskedLM` and Hugging Face's BertForMaskedLM: the same logits from the same weights, and milliseconds a step, in turns.

Two layers (and six, as in the paper) of 64 features, one head, 128 hidden units; 1,000 words and 100 novel ones;
batches of 128 sequences of seven tokens; AdamW. Ours takes logits at the three masked places alone, and draws each
batch as it goes; theirs is given batches that were drawn before. PyTorch has both cores.

    python -m venv peer && peer/bin/pip install torch transformers
    python benchmarks/masked_lm_against_transformers.py --peer peer/bin/python
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import asked

WORDS, SIZE, HIDDEN, BATCH, RATE, STEPS = 1000, 64, 128, 128, 1e-4, 200


def theirs(file: Path, layers: int, seed: int) -> dict[str, Any]:
    """Weights and logits, left beside the file of tokens, and the time of a step."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    part = np.load(file)
    vocabulary = int(part["vocabulary"])
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=SIZE, num_hidden_layers=layers, num_attention_heads=1, intermediate_size=HIDDEN,
        layer_norm_eps=1e-5, attention_probs_dropout_prob=0.0, pad_token_id=None,
    )  # fmt: skip
    model = BertForMaskedLM(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():  # biases too, so that all of them count
            if name.endswith("bias"):
                value.normal_(0, 0.1)
        logits = model(torch.as_tensor(part["tokens"])[0]).logits
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    np.savez(file.with_name("weights.npz"), logits=logits.numpy(), **weights)
    rule = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    batches, answers = (torch.as_tensor(part[name]).long() for name in ("tokens", "answers"))
    model.train()
    start = time.perf_counter()
    for tokens, answer in zip(batches, answers, strict=True):
        rule.zero_grad()
        found = model(tokens).logits[:, 4:].transpose(1, 2)
        torch.nn.functional.cross_entropy(found, answer).backward()
        rule.step()
    return {"milliseconds": 1e3 * (time.perf_counter() - start) / len(batches)}


def loaded(weights: dict[str, np.ndarray], layers: int, vocabulary: int) -> Any:
    """Our network with their weights."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from latebloom.nn.masked_lm import MaskedLM

    model = MaskedLM(vocabulary, 7, key=jax.random.key(0), size=SIZE, hidden=HIDDEN, layers=layers)
    w = {k: jnp.asarray(v) for k, v in weights.items()}
    root = "bert.embeddings."
    kind = w[f"{root}token_type_embeddings.weight"][0]  # of the first sentence: all tokens have it
    head = "cls.predictions."
    new = [w[f"{root}word_embeddings.weight"], w[f"{root}position_embeddings.weight"][:7] + kind,
           w[f"{root}LayerNorm.weight"], w[f"{root}LayerNorm.bias"], w[f"{head}transform.dense.weight"].T,
           w[f"{head}transform.dense.bias"], w[f"{head}transform.LayerNorm.weight"],
           w[f"{head}transform.LayerNorm.bias"], w[f"{head}bias"]]  # fmt: skip
    model = eqx.tree_at(
        lambda m: [m.embedding, m.position, m.norm.scale, m.norm.shift, m.dense.weight, m.dense.bias,
                   m.dense_norm.scale, m.dense_norm.shift, m.bias], model, new)  # fmt: skip
    for i in range(layers):
        at = f"bert.encoder.layer.{i}."
        own = [f"{at}attention.self.{name}" for name in ("query", "key", "value")]
        parts = {
            "query_key_value": (jnp.concatenate([w[f"{n}.weight"].T for n in own], axis=1), jnp.concatenate([w[f"{n}.bias"] for n in own])),
            **{ours: (w[f"{at}{name}.dense.weight"].T, w[f"{at}{name}.dense.bias"])
               for ours, name in (("out", "attention.output"), ("up", "intermediate"), ("down", "output"))},
        }  # fmt: skip
        norms = [w[f"{at}{n}.LayerNorm.{p}"] for n in ("attention.output", "output") for p in ("weight", "bias")]  # fmt: skip

        def leaves(m: Any, i: int = i, parts: Any = parts) -> list[Any]:
            block = m.blocks[i]
            affine = [x for name in parts for x in (getattr(block, name).weight, getattr(block, name).bias)]  # fmt: skip
            return affine + [x for n in block.norms for x in (n.scale, n.shift)]

        model = eqx.tree_at(leaves, model, [x for pair in parts.values() for x in pair] + norms)
    return model


def ours(layers: int, seeds: int) -> tuple[float, float]:
    """Milliseconds a step and seed, and seconds of compiling."""
    import optax

    from latebloom import unfold
    from latebloom.data.roles import Roles
    from latebloom.methods.forgetting.in_context import RoleLearner
    from latebloom.nn.masked_lm import MaskedLM

    process = RoleLearner(
        network=lambda v, key: MaskedLM(v, 7, key=key, size=SIZE, hidden=HIDDEN, layers=layers),
        roles=lambda key: Roles(WORDS, key=key), hyper={"rate": RATE}, steps=STEPS, batch=BATCH,
        optimiser=lambda rate: optax.adamw(rate, weight_decay=0.01),
    )  # fmt: skip
    trace = unfold(process, seeds=seeds, at=[STEPS], progress=False)
    return 1e3 * trace.attrs["run_seconds"] / STEPS / seeds, trace.attrs["compile_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer", required=True, help="a Python that has torch and transformers")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, default=2, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.file:
        print(json.dumps(theirs(told.file, told.layers, told.seed)))
        return
    import jax

    from latebloom.data.roles import Roles

    roles = Roles(WORDS, key=jax.random.key(0))
    drawn = jax.vmap(lambda k: roles.training(k, BATCH))(jax.random.split(jax.random.key(1), STEPS))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokens.npz"
        np.savez(file, tokens=drawn.tokens, answers=drawn.in_context, vocabulary=roles.vocabulary)
        for turn in range(told.turns):
            for layers in (2, 6):
                for seeds in (1, 4):
                    took, compiling = ours(layers, seeds)
                    print(f"{layers} layers, latebloom, {seeds} at once: {took:.1f} ms a step and seed (compiling {compiling:.0f} s)", flush=True)  # fmt: skip
                said = asked(told.peer, __file__, "--peer", "-", "--file", str(file), "--layers", str(layers), "--seed", str(turn))  # fmt: skip
                with np.load(file.with_name("weights.npz")) as part:
                    weights = {name: part[name] for name in part.files}
                logits = weights.pop("logits")
                model = loaded(weights, layers, roles.vocabulary)
                apart = float(np.abs(np.asarray(model(drawn.tokens[0])) - logits).max())
                print(f"{layers} layers, transformers: {said['milliseconds']:.1f} ms a step; logits apart by {apart:.1e} of {np.abs(logits).max():.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
