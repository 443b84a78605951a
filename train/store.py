"""A model on disk, in its family's published layout."""
import importlib
import json
import os

from safetensors.torch import load_file, save_file
import torch

FAMILIES = {"olmoe": "train.olmoe", "molm": "train.molm", "moe++": "train.moe_plus_plus"}


def family(name):
    return importlib.import_module(FAMILIES[name])


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def export(model, out, dtype="bf16"):
    """config.json, generation_config.json and model.safetensors; the tokenizer is there already."""
    os.makedirs(out, exist_ok=True)
    kind = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    write_json(os.path.join(out, "config.json"), {**model.config, "torch_dtype": str(kind).removeprefix("torch.")})
    write_json(os.path.join(out, "generation_config.json"), {k: model.config[k] for k in ("eos_token_id", "pad_token_id") if k in model.config})
    tensors = {n: t.detach().to("cpu", kind).contiguous().clone() for n, t in model.tensors().items()}
    path = os.path.join(out, "model.safetensors")
    save_file(tensors, path, {"format": "pt"})
    os.chmod(path, 0o644)  # safetensors lets only its owner read


def load(path):
    """A model of any family here, in f32, from a directory with config.json and model.safetensors."""
    with open(os.path.join(path, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    for module in map(importlib.import_module, FAMILIES.values()):
        if module.MODEL_TYPE == config["model_type"]:
            model = module.Model(config)
            model.load_tensors({n: t.float() for n, t in load_file(os.path.join(path, "model.safetensors")).items()})
            return model
    raise ValueError(f"{path}: model_type {config['model_type']} is none of {', '.join(FAMILIES)}")
