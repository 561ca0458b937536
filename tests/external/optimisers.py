"""Steps a few small parameters twenty times with the reference implementation of each optimiser, and gets the rates of
transformers' schedules. What it writes is committed: fixtures/optimisers.safetensors and fixtures/schedules.json, with
which crates/luthier-train/tests/optimisers.rs and schedules.rs compare.

    python3 -m venv .venv && .venv/bin/pip install -r tests/external/requirements.txt
    .venv/bin/pip install --no-deps adam-mini==1.1.1 galore-torch==1.0 apollo-torch==1.0.3 badam==1.4 \\
        lion-pytorch==0.2.5 schedulefree==1.4.1 bitsandbytes==0.50.2
    .venv/bin/python tests/external/optimisers.py

Made with torch 2.11.0 and transformers 5.6.0, on one thread, in f32. Starting values, gradients and random projections are
functions of counted random numbers (SplitMix64), which this script and Luthier compute alike, so nothing else is committed.

Three references are changed, each in one place:
- torch.optim.Muon orthogonalises in bf16; here in f32, for otherwise its rounding would be all that is measured. How far
  apart the two are is printed.
- galore_torch takes singular vectors with the signs that LAPACK happens to give them; here the largest number of each is
  positive. Moments are kept when the vectors change, so the signs matter.
- apollo_torch draws projections from torch's generator; here they are the counted numbers.
"""

import inspect
import json
import math
import pathlib

import numpy
import torch
import transformers
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 20
SEED = 7
MASK = (1 << 64) - 1
HEAD_DIM = 8

# Names decide what an optimiser does with a parameter, so they are those of a Llama.
SHAPES = {
    "model.embed_tokens.weight": (40, 16),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.layers.0.self_attn.k_proj.weight": (8, 16),
    "model.layers.0.mlp.down_proj.weight": (16, 48),
    "model.layers.1.mlp.up_proj.weight": (64, 65),
    "model.layers.1.mlp.up_proj.bias": (64,),
    "model.layers.1.post_attention_layernorm.weight": (16,),
    "lm_head.weight": (40, 16),
}


def mix(values):
    """SplitMix64's output function, of one number or an array."""
    if isinstance(values, int):
        z = (values + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)
    with numpy.errstate(over="ignore"):
        z = values + numpy.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        return z ^ (z >> numpy.uint64(31))


def stream(seed, name, round):
    hash = seed
    for byte in name.encode():
        hash = mix(hash ^ byte)
    return mix(hash ^ mix(round))


def uniform(stream, count):
    """Numbers from 0 to below 1, in f64."""
    bits = mix(numpy.uint64(stream) ^ mix(numpy.arange(count, dtype=numpy.uint64))) >> numpy.uint64(11)
    return bits.astype(numpy.float64) / float(1 << 53)


def normal(stream, count):
    pairs = uniform(stream, 2 * count)
    return numpy.sqrt(-2.0 * numpy.log(1.0 - pairs[0::2])) * numpy.cos(2.0 * math.pi * pairs[1::2])


def numbers(name, round):
    """From -1 to below 1, in a parameter's shape; `round` tells them from others of the parameter."""
    shape = SHAPES[name]
    return 2.0 * uniform(stream(SEED, name, round), math.prod(shape)).reshape(shape) - 1.0


def start(name):
    return torch.from_numpy(numbers(name, 0).astype(numpy.float32))


def gradient(name, step):
    """What all steps have in common, and half as much that is the step's own. Some rows of the embedding have none."""
    found = 0.1 * (numbers(name, 1000) + 0.5 * numbers(name, step))
    if name == "model.embed_tokens.weight":
        found[30:] = 0.0
    return torch.from_numpy(found.astype(numpy.float32))


def rate(step):
    """Of step `step`, from 1, as a share of the highest."""
    return 1.0 - (step - 1) / 40.0


def decays(name):
    return "norm" not in name and "bias" not in name


def is_hidden(name):
    return len(SHAPES[name]) == 2 and "embed" not in name and "lm_head" not in name


def run(make, learning_rate, clip=None, evaluate=None, scales_rate=True):
    parameters = {name: torch.nn.Parameter(start(name)) for name in SHAPES}
    optimisers = make(parameters, learning_rate)
    for step in range(1, STEPS + 1):
        for name, parameter in parameters.items():
            if parameter.requires_grad:
                parameter.grad = gradient(name, step)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                if scales_rate:
                    group["lr"] = learning_rate * group.get("factor", 1.0) * rate(step)
            optimiser.step()
    if evaluate is not None:
        evaluate(optimisers)
    return {name: parameter.detach().numpy().copy() for name, parameter in parameters.items()}


def two_groups(parameters, weight_decay, chosen=None, **more):
    """What decays and what does not; the `chosen` with `more`."""
    chosen = chosen or (lambda name: False)
    groups = []
    for name, parameter in parameters.items():
        group = {"params": [parameter], "weight_decay": weight_decay if decays(name) else 0.0}
        groups.append(group | (more if chosen(name) else {}))
    return groups


def adamw(parameters, rate):
    return [torch.optim.AdamW(two_groups(parameters, 0.1), lr=rate, betas=(0.9, 0.95), eps=1e-8)]


def adam_mini(parameters, rate):
    from adam_mini import Adam_mini

    return [
        Adam_mini(
            list(parameters.items()),
            lr=rate,
            betas=(0.9, 0.95),
            eps=1e-8,
            weight_decay=0.1,
            dim=16,
            n_heads=16 // HEAD_DIM,
            n_kv_heads=1,
            verbose=False,
        )
    ]


def adamw_8bit(parameters, rate):
    from bitsandbytes.optim import AdamW

    return [AdamW(two_groups(parameters, 0.1), lr=rate, betas=(0.9, 0.95), eps=1e-8, optim_bits=8)]


def adafactor(parameters, rate):
    groups = two_groups(parameters, 0.1)
    return [transformers.Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)]


def adafactor_relative(parameters, rate):
    groups = two_groups(parameters, 0.1)
    return [transformers.Adafactor(groups, beta1=0.9, scale_parameter=True, relative_step=True)]


def lion(parameters, rate):
    from lion_pytorch import Lion

    return [Lion(two_groups(parameters, 0.1), lr=rate, betas=(0.9, 0.99))]


def sgd(parameters, rate):
    return [torch.optim.SGD(two_groups(parameters, 0.1), lr=rate)]


def sgd_momentum(parameters, rate):
    return [torch.optim.SGD(two_groups(parameters, 0.1), lr=rate, momentum=0.9, dampening=0.3)]


def sgd_nesterov(parameters, rate):
    return [torch.optim.SGD(two_groups(parameters, 0.1), lr=rate, momentum=0.9, nesterov=True)]


def muon_with(adjust):
    def make(parameters, rate):
        hidden = [parameter for name, parameter in parameters.items() if is_hidden(name)]
        others = {name: parameter for name, parameter in parameters.items() if not is_hidden(name)}
        muon = torch.optim.Muon(hidden, lr=rate, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn=adjust)
        return [muon, *adamw(others, rate)]

    return make


def with_signs(svd):
    def signed(matrix, full_matrices=False):
        u, s, v = svd(matrix, full_matrices=full_matrices)
        return (
            u * u.gather(0, u.abs().argmax(0, keepdim=True)).sign(),
            s,
            v * v.gather(1, v.abs().argmax(1, keepdim=True)).sign(),
        )

    return signed


def galore_with(proj_type):
    def make(parameters, rate):
        from galore_torch import GaLoreAdamW

        more = {"rank": 4, "update_proj_gap": 7, "scale": 0.25, "proj_type": proj_type}
        groups = two_groups(parameters, 0.1, is_hidden, **more)
        return [GaLoreAdamW(groups, lr=rate, betas=(0.9, 0.95), eps=1e-8, no_deprecation_warning=True)]

    return make


def apollo_with(front, **more):
    def make(parameters, rate):
        from apollo_torch import APOLLOAdamW, random_projector

        names = list(parameters)

        def counted(shape, seed, device=None, dtype=None):
            round, name = divmod(seed, 1000)
            one = shape[0] if shape[0] == more["rank"] else shape[1]
            other = shape[1] if shape[0] == more["rank"] else shape[0]
            found = normal(stream(SEED, names[name - 1], round), one * other).reshape(one, other)
            found = found if shape[0] == more["rank"] else found.T
            return torch.from_numpy(numpy.ascontiguousarray(found).astype(numpy.float32))

        random_projector.stable_randn = counted
        random_projector.next_seed = lambda seed, adv=0: seed + 1000
        groups = two_groups(parameters, 0.1, is_hidden, update_proj_gap=7, proj_type="std", **more)
        return [APOLLOAdamW(groups, lr=rate, betas=(0.9, 0.95), eps=1e-8, scale_front=front)]

    return make


def badam(parameters, rate):
    from badam import BlockOptimizer

    base = torch.optim.AdamW(two_groups(parameters, 0.0), lr=rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    return [
        BlockOptimizer(
            base,
            list(parameters.items()),
            switch_block_every=6,
            switch_mode="ascending",
            verbose=0,
        )
    ]


def schedule_free(parameters, rate):
    from schedulefree import AdamWScheduleFree

    groups = two_groups(parameters, 0.1)
    optimiser = AdamWScheduleFree(groups, lr=rate, betas=(0.9, 0.95), eps=1e-8, warmup_steps=0)
    optimiser.train()
    return [optimiser]


def optimisers():
    in_f32 = inspect.getsource(torch.optim._muon._zeropower_via_newtonschulz)
    in_bf16 = torch.optim._muon._zeropower_via_newtonschulz
    scope = dict(vars(torch.optim._muon))
    exec(in_f32.replace("grad.bfloat16()", "grad.clone()"), scope)
    bf16 = run(muon_with(None), 1e-2)
    torch.optim._muon._zeropower_via_newtonschulz = scope["_zeropower_via_newtonschulz"]
    found = {
        "adamw": run(adamw, 1e-2),
        "adamw_clipped": run(adamw, 1e-2, clip=1.0),
        "adam_mini": run(adam_mini, 1e-2),
        "adamw_8bit": run(adamw_8bit, 1e-2),
        "adafactor": run(adafactor, 1e-2),
        "adafactor_relative": run(adafactor_relative, 0.0, scales_rate=False),
        "lion": run(lion, 1e-3),
        "sgd": run(sgd, 0.1),
        "sgd_momentum": run(sgd_momentum, 0.1),
        "sgd_nesterov": run(sgd_nesterov, 0.1),
        "muon": run(muon_with(None), 1e-2),
        "muon_matching": run(muon_with("match_rms_adamw"), 1e-2),
        "galore": run(galore_with("std"), 1e-2),
        "galore_reverse": run(galore_with("reverse_std"), 1e-2),
        "apollo": run(apollo_with(False, rank=4, proj="random", scale=1.0, scale_type="channel"), 1e-2),
        "apollo_mini": run(apollo_with(True, rank=1, proj="random", scale=128.0, scale_type="tensor"), 1e-2),
        "apollo_svd": run(apollo_with(False, rank=4, proj="svd", scale=1.0, scale_type="channel"), 1e-2),
        "badam": run(badam, 1e-2),
        "schedule_free": run(schedule_free, 1e-2, evaluate=lambda optimisers: optimisers[0].eval()),
    }
    name = "model.layers.1.mlp.up_proj.weight"
    change = found["muon"][name] - start(name).numpy()
    far = numpy.linalg.norm(bf16[name] - found["muon"][name]) / numpy.linalg.norm(change)
    print(f"muon: bf16 and f32 differ by {far:.1e} of the change")
    torch.optim._muon._zeropower_via_newtonschulz = in_bf16
    tensors = {f"{case}/{name}": values for case, result in found.items() for name, values in result.items()}
    from bitsandbytes.functional import create_dynamic_map

    tensors["dynamic_map.signed"] = create_dynamic_map(signed=True).numpy()
    tensors["dynamic_map.unsigned"] = create_dynamic_map(signed=False).numpy()
    save_file(tensors, ROOT / "fixtures" / "optimisers.safetensors")


# Schedules: name, arguments of get_scheduler, and its own.
SCHEDULES = [
    ("linear", {}),
    ("cosine", {}),
    ("cosine", {"num_cycles": 1.5}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {}),
    ("polynomial", {"lr_end": 1e-5, "power": 2.0}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 20}),
    ("cosine_with_min_lr", {"min_lr": 1e-4}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1, "num_cycles": 1.0}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1}),
    ("cosine_warmup_with_min_lr", {"min_lr": 1e-4, "warmup_lr_rate": 0.2}),
    ("warmup_stable_decay", {"num_decay_steps": 12}),
    ("warmup_stable_decay", {"num_decay_steps": 12, "num_stable_steps": 5, "min_lr_ratio": 0.1}),
    ("warmup_stable_decay", {"num_decay_steps": 12, "warmup_type": "cosine", "decay_type": "linear"}),
    ("warmup_stable_decay", {"num_decay_steps": 12, "warmup_type": "1-sqrt", "decay_type": "1-sqrt"}),
]


def schedules():
    found = []
    for warmup in [0, 6]:
        for name, more in SCHEDULES:
            parameter = torch.nn.Parameter(torch.zeros(1))
            optimiser = torch.optim.SGD([parameter], lr=1e-3)
            schedule = transformers.get_scheduler(
                name,
                optimiser,
                num_warmup_steps=warmup,
                num_training_steps=40,
                scheduler_specific_kwargs=dict(more),
            )
            rates = []
            for _ in range(40):
                rates.append(schedule.get_last_lr()[0])
                optimiser.step()
                schedule.step()
            found.append({"name": name, "warmup_steps": warmup, "kwargs": more, "rates": rates})
    lines = ",\n".join(json.dumps(one) for one in found)
    (ROOT / "fixtures" / "schedules.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.linalg.svd = with_signs(torch.linalg.svd)
    optimisers()
    schedules()
